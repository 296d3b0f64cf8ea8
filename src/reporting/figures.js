// Figures: drawn by plotly when they come near the screen, saved as SVG, PNG or CSV. Nothing leaves the page.
const CONFIG = {responsive: true, displaylogo: false, modeBarButtons: [["zoom2d", "pan2d", "resetScale2d"]]};
// the library runs in the page once it is unpacked
const plotlyReady = decompress(byId("plotly").textContent).then(code => {
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(code);
  document.head.append(script);
});
const sections = [...document.querySelectorAll("section.figure")];
const figures = new Map();  // section → its data and layout, once they are unpacked
async function loadFigure(section) {
  if (!figures.has(section)) {
    const text = await decompress(section.querySelector(".data").textContent);
    figures.set(section, JSON.parse(new TextDecoder().decode(text)));
  }
  return figures.get(section);
}
// two panels one below the other, on a narrow screen
function stackPanels(plot, layout) {
  layout.height = 1.8 * layout.height;
  for (const axis of [layout.xaxis, layout.xaxis2]) axis.domain = [0, 1];
  Object.assign(layout.yaxis, {domain: [.58, 1]});
  Object.assign(layout.yaxis2, {domain: [0, .42], anchor: "x2", showticklabels: true, title: layout.yaxis.title});
  layout.xaxis2.anchor = "y2";
  Object.assign(plot.style, {minWidth: 0, height: `${layout.height}px`});
}
function drawFigure(section) {
  const plot = section.querySelector(".plot"), {data, layout} = structuredClone(figures.get(section));
  if (plot.data) return;
  if (layout.meta?.stack && innerWidth < 600) stackPanels(plot, layout);
  Plotly.newPlot(plot, data, layout, CONFIG);
}
const figureObserver = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(async ({target}) => {
  figureObserver.unobserve(target);
  await Promise.all([plotlyReady, loadFigure(target)]);
  drawFigure(target);
}), {rootMargin: "300px"});
for (const section of sections) figureObserver.observe(section);
// unpacked ahead, so that printing, which does not wait, can draw all
const allLoaded = plotlyReady.then(() => Promise.all(sections.map(loadFigure)));

// --- saving ---
function download(url, name) {
  const link = document.createElement("a");
  Object.assign(link, {href: url, download: name});
  link.click();
}
const ARRAYS = {i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array};
// plain numbers of a list that may be packed in base64
function unpacked(values) {
  if (!values?.bdata) return values ?? [];
  const flat = [...new ARRAYS[values.dtype](Uint8Array.from(atob(values.bdata), character => character.charCodeAt(0)).buffer)];
  const columns = values.shape ? +`${values.shape}`.split(",")[1] : 0;
  return columns ? Array.from({length: flat.length / columns}, (_, i) => flat.slice(i * columns, (i + 1) * columns)) : flat;
}
// the title above a trace's panel, else those of its axes
function panelOf(trace, layout) {
  const axis = (letter, name) => layout[`${letter}axis${name?.slice(1) ?? ""}`] ?? {};
  const x = axis("x", trace.xaxis), y = axis("y", trace.yaxis), [left, right] = x.domain ?? [0, 1], top = (y.domain ?? [0, 1])[1];
  const isAbove = note => Math.abs(note.x - (left + right) / 2) < 1e-3 && Math.abs(note.y - top) < 1e-3;
  const title = (layout.annotations ?? []).find(isAbove)?.text ?? [y.title?.text, x.title?.text].filter(Boolean).join(" by ");
  return title.replace(/<[^>]*>/g, " ");
}
function csvOf({data, layout}) {
  const rows = [["panel", "series", "kind", "x", "y", "value", "low", "high"]];
  for (const trace of data) {
    const start = [panelOf(trace, layout), trace.name ?? "", trace.meta ?? ""], xs = unpacked(trace.x), ys = unpacked(trace.y);
    if (trace.z) unpacked(trace.z).forEach((row, i) => row.forEach((value, j) => rows.push([...start, xs[j], ys[i], value, "", ""])));
    else xs.forEach((x, i) => {
      const isFlat = trace.orientation === "h", value = isFlat ? x : ys[i], bars = trace.error_y ?? {};
      const [above, below] = [bars.array, bars.arrayminus ?? bars.array].map(unpacked);
      rows.push([...start, isFlat ? ys[i] : x, "", value, below.length ? value - below[i] : "", above.length ? value + above[i] : ""]);
    });
  }
  const field = value => /[",\n]/.test(value ?? "") ? `"${String(value).replaceAll('"', '""')}"` : value ?? "";
  return rows.map(row => row.map(field).join(",")).join("\n") + "\n";
}
async function saveFigure(section, format) {
  const [figure] = await Promise.all([loadFigure(section), plotlyReady]), name = `${section.id}.${format}`;
  if (format === "csv") return download(URL.createObjectURL(new Blob([csvOf(figure)], {type: "text/csv"})), name);
  const {data, layout} = structuredClone(figure), plot = section.querySelector(".plot");
  Object.assign(layout, {paper_bgcolor: "#fff", font: {...layout.font, color: "#333"}});
  const size = {width: Math.max(plot.clientWidth, layout.meta?.width ?? 560), height: layout.height};
  download(await Plotly.toImage({data, layout}, {format, ...size, scale: format === "png" ? 2 : 1}), name);
}
for (const section of sections) {
  for (const button of section.querySelectorAll("[data-save]")) button.addEventListener("click", () => saveFigure(section, button.dataset.save));
}
