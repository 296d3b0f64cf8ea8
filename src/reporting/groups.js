// Folded groups: opened by links and by the address, and all of them for printing. The browser's own search opens them.
function reveal(anchor) {
  const target = anchor && byId(decodeURIComponent(anchor.slice(1)));
  if (!target) return;
  for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
  target.scrollIntoView();
}
for (const link of document.querySelectorAll("nav a")) {
  link.addEventListener("click", () => reveal(link.hash));  // also where the address has that hash already
}
addEventListener("hashchange", () => reveal(location.hash));
reveal(location.hash);

let openedForPrint = [];
addEventListener("beforeprint", () => {
  openedForPrint = [...document.querySelectorAll("details:not([open])")];
  for (const group of openedForPrint) group.open = true;
  for (const section of sections) if (figures.has(section) && window.Plotly) drawFigure(section);
  outdated.forEach(fadeOutdated);
  if (typeof cards !== "undefined") drawForPrint();
});
addEventListener("afterprint", () => { for (const group of openedForPrint) group.open = false; });
