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
// on a screen that is narrower than the figure, its panels in fewer columns
function fitPanels(plot, data, layout) {
  const width = plot.parentNode.clientWidth;
  if (width >= (layout.meta?.width ?? 560) || data.some(trace => trace.type === "heatmap")) return;
  const panels = new Map(data.map(trace => [trace.xaxis ?? "x", {trace, title: titleOf(trace, layout)}])), n = panels.size;
  const least = data.some(trace => trace.orientation === "h") ? 300 : n > 2 ? 175 : 260, columns = Math.max(1, Math.floor(width / least));
  const rows = Math.ceil(n / columns), height = columns > 1 ? 190 : 230, below = 70, whole = rows * (height + below) - below, yTitle = layout.yaxis.title;
  [...panels.values()].forEach(({trace, title}, i) => {
    const x = layout[`xaxis${trace.xaxis?.slice(1) ?? ""}`], y = layout[`yaxis${trace.yaxis?.slice(1) ?? ""}`], column = i % columns;
    const top = 1 - Math.floor(i / columns) * (height + below) / whole;
    x.domain = [column / columns + (column ? .04 : 0), (column + 1) / columns - (column < columns - 1 ? .04 : 0)];
    y.domain = [top - height / whole, top];
    Object.assign(y, {title: column ? undefined : yTitle, showticklabels: !column || !y.matches});
    if (x.title?.text) x.title.font = {size: Math.min(14, 1.7 * (width / columns - 50) / x.title.text.length)};
    if (title) Object.assign(title, {x: (x.domain[0] + x.domain[1]) / 2, y: top});
  });
  const names = data.filter(trace => trace.showlegend !== false && trace.name).map(trace => trace.name);
  const head = 58 + 30 * Math.ceil(names.reduce((sum, name) => sum + 7 * name.length + 50, 0) / width);
  layout.margin = {...layout.margin, t: head, r: 4};
  layout.legend = {...layout.legend, y: 1 + 28 / whole};
  layout.height = whole + head + 60;
  Object.assign(plot.style, {minWidth: 0, height: `${layout.height}px`});
}
function drawFigure(section) {
  const plot = section.querySelector(".plot"), {data, layout} = structuredClone(figures.get(section));
  if (plot.data) return;
  fitPanels(plot, data, layout);
  Plotly.newPlot(plot, data, layout, CONFIG);
  decorateFigure(section);
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
async function saveFigure(section, format) {
  const name = `${section.id.replace("figure-", "")}.${format}`;
  if (format === "csv") {
    const table = await decompress(section.querySelector(".table").textContent);
    return download(URL.createObjectURL(new Blob([table], {type: "text/csv"})), name);
  }
  const [figure] = await Promise.all([loadFigure(section), plotlyReady]);
  const {data, layout} = structuredClone(figure), plot = section.querySelector(".plot");
  Object.assign(layout, {paper_bgcolor: "#fff", font: {...layout.font, color: "#333"}});
  const size = {width: Math.max(plot.clientWidth, layout.meta?.width ?? 560), height: layout.height};
  download(await Plotly.toImage({data, layout}, {format, ...size, scale: format === "png" ? 2 : 1}), name);
}
for (const section of sections) {
  for (const button of section.querySelectorAll("[data-save]")) button.addEventListener("click", () => saveFigure(section, button.dataset.save));
}
