const figures = [...document.querySelectorAll("script.figure")], plots = [...document.querySelectorAll(".plot")];
const draw = plot => {
  const {data, layout} = JSON.parse(figures[plots.indexOf(plot)].textContent);
  Plotly.newPlot(plot, data, layout, {responsive: true, displaylogo: false});
  seen.unobserve(plot);
};
const seen = new IntersectionObserver(found => found.filter(one => one.isIntersecting).forEach(one => draw(one.target)), {rootMargin: "300px"});
for (const plot of plots) seen.observe(plot);
addEventListener("beforeprint", () => plots.filter(plot => !plot.data).forEach(draw));
for (const button of document.querySelectorAll("table.sortable th button")) button.addEventListener("click", () => {
  const head = button.closest("th"), body = button.closest("table").tBodies[0], column = +button.dataset.column;
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.sort;
  [...body.rows].sort((a, b) => sign * (isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b)))
    .forEach(row => body.append(row));
});
const baseline = document.getElementById("baseline");
baseline?.addEventListener("change", () => {
  [...document.getElementById("differences").tBodies].forEach((body, i) => body.hidden = i !== baseline.selectedIndex);
});
