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
// the title above a trace's panel, if it has one
function titleOf(trace, layout) {
  const axis = (letter, name) => layout[`${letter}axis${name?.slice(1) ?? ""}`] ?? {};
  const [left, right] = axis("x", trace.xaxis).domain ?? [0, 1], top = (axis("y", trace.yaxis).domain ?? [0, 1])[1];
  return (layout.annotations ?? []).find(note => Math.abs(note.x - (left + right) / 2) < 1e-3 && Math.abs(note.y - top) < 1e-3);
}
// what is drawn of a figure: of one with many panels, those of the part that is chosen
function shownOf(section) {
  const {data, layout} = figures.get(section) ?? {data: [], layout: {}};
  const axes = layout.meta?.parts?.[section.querySelector("[data-part]").value];
  return {data: axes ? data.filter(trace => axes.includes(trace.xaxis ?? "x")) : data, layout};
}
// its panels in as many columns as a width has room for: those of a part, or of all where they would be wider
function arrangePanels(data, layout, width) {
  const chosen = layout.meta?.parts !== undefined;
  if (!chosen && (width >= (layout.meta?.width ?? 560) || layout.meta?.scrolls || data.some(trace => trace.type === "heatmap"))) return false;
  const panels = new Map(data.map(trace => [trace.xaxis ?? "x", {trace, title: titleOf(trace, layout)}])), n = panels.size;
  if (chosen) {
    for (const name of Object.keys(layout)) if (/^[xy]axis/.test(name) && !panels.has(name.replace("axis", "").replace("y", "x"))) delete layout[name];
    layout.annotations = [...panels.values()].map(({title}) => title);
    const named = new Set();
    for (const trace of data) trace.showlegend = !named.has(trace.name) && !!named.add(trace.name);
  }
  const least = data.some(trace => trace.orientation === "h") ? 300 : n > 2 ? 175 : 260, columns = Math.max(1, Math.min(4, Math.floor(width / least)));
  const rows = Math.ceil(n / columns), height = columns > 1 ? 190 : 230, below = chosen ? 84 : 70, whole = rows * (height + below) - below, yTitle = layout.yaxis?.title;
  [...panels.values()].forEach(({trace, title}, i) => {
    const x = layout[`xaxis${trace.xaxis?.slice(1) ?? ""}`], y = layout[`yaxis${trace.yaxis?.slice(1) ?? ""}`], column = i % columns;
    const top = 1 - Math.floor(i / columns) * (height + below) / whole;
    x.domain = [column / columns + (column ? .04 : 0), (column + 1) / columns - (column < columns - 1 ? .04 : 0)];
    y.domain = [top - height / whole, top];
    Object.assign(y, {title: column ? undefined : yTitle, showticklabels: !column || !y.matches});
    const fit = (text, room, size) => ({size: Math.min(size, 1.7 * room / Math.max(...text.split("<br>").map(line => line.length)))});
    if (x.title?.text) x.title.font = fit(x.title.text, width / columns - 50, 14);
    if (title) Object.assign(title, {x: (x.domain[0] + x.domain[1]) / 2, y: top, font: fit(title.text, width / columns - 8, title.font?.size ?? 14)});
  });
  const names = data.filter(trace => trace.showlegend !== false && trace.name).map(trace => trace.name);
  const head = 58 + 30 * Math.ceil(names.reduce((sum, name) => sum + 7 * name.length + 50, 0) / width);
  layout.margin = {...layout.margin, t: head, r: 4};
  layout.legend = {...layout.legend, y: 1 + 28 / whole};
  layout.height = whole + head + 60;
  return true;
}
function drawFigure(section) {
  const plot = section.querySelector(".plot"), {data, layout} = structuredClone(shownOf(section));
  if (plot.data) return;
  if (arrangePanels(data, layout, plot.parentNode.clientWidth)) Object.assign(plot.style, {minWidth: 0, height: `${layout.height}px`});
  Plotly.newPlot(plot, data, layout, CONFIG);
  decorateFigure(section);
}
for (const section of sections) section.querySelector("[data-part]")?.addEventListener("change", () => {
  Plotly.purge(section.querySelector(".plot"));
  drawFigure(section);
});
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
async function saveFigure(section, format) {
  const name = `${section.id.replace("figure-", "")}.${format}`;
  if (format === "csv") {
    const table = await decompress(section.querySelector(".table").textContent);
    return download(URL.createObjectURL(new Blob([table], {type: "text/csv"})), name);
  }
  await Promise.all([loadFigure(section), plotlyReady]);
  const {data, layout} = structuredClone(shownOf(section)), plot = section.querySelector(".plot");
  if (layout.meta?.parts) arrangePanels(data, layout, layout.meta.width);
  Object.assign(layout, {paper_bgcolor: "#fff", font: {...layout.font, color: "#333"}});
  const size = {width: Math.max(plot.clientWidth, layout.meta?.width ?? 560), height: layout.height};
  download(await Plotly.toImage({data, layout}, {format, ...size, scale: format === "png" ? 2 : 1}), name);
}
for (const section of sections) {
  for (const button of section.querySelectorAll("[data-save]")) button.addEventListener("click", () => saveFigure(section, button.dataset.save));
}
