const figures = [...document.querySelectorAll("script.figure")], plots = [...document.querySelectorAll(".plot")];
// two panels one below the other, on a narrow screen
function stackPanels(plot, layout) {
  layout.height = 1.8 * layout.height;
  for (const axis of [layout.xaxis, layout.xaxis2]) axis.domain = [0, 1];
  Object.assign(layout.yaxis, {domain: [.58, 1]});
  Object.assign(layout.yaxis2, {domain: [0, .42], anchor: "x2", showticklabels: true, title: layout.yaxis.title});
  layout.xaxis2.anchor = "y2";
  Object.assign(plot.style, {minWidth: 0, height: `${layout.height}px`});
}
function drawPlot(plot) {
  const {data, layout} = JSON.parse(figures[plots.indexOf(plot)].textContent);
  if (layout.meta?.stack && innerWidth < 600) stackPanels(plot, layout);
  Plotly.newPlot(plot, data, layout, {responsive: true, displaylogo: false});
  plotObserver.unobserve(plot);
}
// figures are drawn when they come near the screen
const plotObserver = new IntersectionObserver(entries => {
  for (const {isIntersecting, target} of entries) if (isIntersecting) drawPlot(target);
}, {rootMargin: "300px"});
for (const plot of plots) plotObserver.observe(plot);
addEventListener("beforeprint", () => plots.filter(plot => !plot.data).forEach(drawPlot));

function sortBy(button) {
  const heading = button.closest("th"), body = button.closest("table").tBodies[0], column = +button.dataset.column;
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const sibling of heading.parentNode.children) sibling.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.sort;
  const compare = (a, b) => isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
  [...body.rows].sort((a, b) => sign * compare(a, b)).forEach(row => body.append(row));
}
for (const button of document.querySelectorAll("table.sortable th button")) button.addEventListener("click", () => sortBy(button));

const baseline = document.getElementById("baseline");
baseline?.addEventListener("change", () => {
  [...document.getElementById("differences").tBodies].forEach((body, i) => body.hidden = i !== baseline.selectedIndex);
});
