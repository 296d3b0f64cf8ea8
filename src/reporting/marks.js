// Variants that are marked: in one table, plot or list, and so in all of them; and the epoch that is chosen, in all figures of epochs.
const variantAxes = JSON.parse(byId("variants-data")?.textContent ?? "{}");  // variant → axis → value
const marked = new Set();  // names; none: all variants are shown alike
let markedEpoch = null;
const isFaded = name => marked.size > 0 && name in variantAxes && !marked.has(name);
const axisSelects = [...document.querySelectorAll("#choose select")];
// Plotly.restyle draws all lines of a figure again, seconds where there are thousands; so what it would set is set here:
// the opacity in the data, in what plotly made of them, and of the groups that are drawn (checked by a test)
function fadeTraces(section) {
  const plot = section.querySelector(".plot"), traces = shownOf(section).data;
  if (!plot.data || !traces.some(trace => trace.name in variantAxes)) return;
  const opacities = traces.map(trace => (trace.opacity ?? 1) * (isFaded(trace.name) ? .12 : 1));
  const changed = new Set([...opacities.keys()].filter(i => opacities[i] !== (plot.data[i].opacity ?? 1)));
  changed.forEach(i => plot.data[i].opacity = plot._fullData[i].opacity = opacities[i]);
  for (const group of plot.querySelectorAll("g.trace, g.traces > g.layers")) {
    const {index} = group.__data__?.[0]?.trace ?? {};
    if (changed.has(index)) group.style.opacity = opacities[index];
  }
}
function drawEpochLine(section) {
  const plot = section.querySelector(".plot"), layout = figures.get(section)?.layout;
  if (!plot.data || markedEpoch === null || layout.xaxis?.title?.text !== "epoch") return;
  const line = {type: "line", x0: markedEpoch, x1: markedEpoch, y0: 0, y1: 1, line: {color: "#808080", width: 1, dash: "dot"}};
  const axes = [...new Set(plot.data.map(trace => trace.xaxis ?? "x"))];
  Plotly.relayout(plot, {shapes: axes.map(axis => ({...line, xref: axis, yref: `${axis.replace("x", "y")} domain`}))});
}
// drawing again takes seconds where there are thousands of lines, so figures off the screen wait until they come near it
const nearScreen = new Set(), outdated = new Set();
const fadeOutdated = section => { if (outdated.delete(section)) fadeTraces(section); };
const marksObserver = new IntersectionObserver(entries => entries.forEach(({target, isIntersecting}) => {
  nearScreen[isIntersecting ? "add" : "delete"](target);
  if (isIntersecting) fadeOutdated(target);
}), {rootMargin: "300px"});
for (const section of sections) marksObserver.observe(section);
// what a figure that is drawn takes over from what was chosen before
function decorateFigure(section) {
  outdated.delete(section);
  if (marked.size) fadeTraces(section);
  drawEpochLine(section);
  const plot = section.querySelector(".plot"), toggleTrace = trace => { if (trace?.name in variantAxes) toggleMark(trace.name); return false; };
  plot.on("plotly_legendclick", ({data, curveNumber}) => toggleTrace(data[curveNumber]));
  plot.on("plotly_click", ({points}) => { toggleTrace(points[0].data); });
}
function showMarks() {
  for (const row of document.querySelectorAll("tr[data-variant]")) {
    row.classList.toggle("faded", isFaded(row.dataset.variant));
    row.querySelector("button")?.setAttribute("aria-pressed", marked.has(row.dataset.variant));
  }
  if (typeof cards !== "undefined") for (const card of cards) card.figure.hidden = isFaded(card.net.name);
  for (const section of sections) outdated.add(section);
  nearScreen.forEach(fadeOutdated);
  const names = Object.keys(variantAxes);
  byId("marked").textContent = marked.size ? `${marked.size} of ${names.length} marked` : `${names.length} variants`;
  byId("unmark").hidden = !marked.size;
}
function toggleMark(name) {
  if (!marked.delete(name)) marked.add(name);
  for (const select of axisSelects) select.value = "";
  showMarks();
}
function markEpoch(epoch) {
  markedEpoch = epoch;
  sections.forEach(drawEpochLine);
}
for (const select of axisSelects) select.addEventListener("change", () => {
  const wanted = axisSelects.filter(each => each.value);
  marked.clear();
  for (const [name, axes] of Object.entries(variantAxes)) {
    if (wanted.length && wanted.every(each => axes[each.dataset.axis] === each.value)) marked.add(name);
  }
  showMarks();
});
byId("unmark")?.addEventListener("click", () => {
  marked.clear();
  for (const select of axisSelects) select.value = "";
  showMarks();
});
for (const row of document.querySelectorAll("table.sortable tr[data-variant]")) {
  row.querySelector("button")?.addEventListener("click", () => toggleMark(row.dataset.variant));
}
