// Tables, definitions of terms, and what other scripts share.
const byId = id => document.getElementById(id);
async function decompress(text) {
  const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

function sortBy(button) {
  const heading = button.closest("th"), body = button.closest("table").tBodies[0], column = +button.dataset.column;
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const sibling of heading.parentNode.children) sibling.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  const key = row => row.cells[column].dataset.sort;
  const compare = (a, b) => isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
  [...body.rows].sort((a, b) => sign * compare(a, b)).forEach(row => body.append(row));
}
for (const button of document.querySelectorAll("table.sortable thead th button")) button.addEventListener("click", () => sortBy(button));

const baseline = byId("baseline");
baseline?.addEventListener("change", () => {
  [...byId("differences").tBodies].forEach((body, i) => body.hidden = i !== baseline.selectedIndex);
});

// a table or figure that is wider than its room can be scrolled by keyboard, where nothing in it takes the focus
const scrollers = new ResizeObserver(entries => entries.forEach(({target}) => {
  const box = target.closest(".scroll");
  box.toggleAttribute("data-wide", box.scrollWidth > box.clientWidth && !box.querySelector("button, a, select, input, [tabindex]"));
  if (box.dataset.wide !== undefined) Object.assign(box, {tabIndex: 0, role: "group", ariaLabel: "wider than the screen; scrolls sideways"});
  else for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
}));
for (const box of document.querySelectorAll(".scroll")) [box, ...box.children].forEach(each => scrollers.observe(each));

// a term's definition beside it: under the mouse, at a tap, or with the keyboard's focus; Escape hides it
const tip = byId("tip");
function showDefinition(term) {
  tip.textContent = byId(term.getAttribute("aria-describedby")).textContent;
  tip.hidden = false;
  const place = term.getBoundingClientRect(), width = document.documentElement.clientWidth;
  tip.style.left = `${Math.max(8, Math.min(place.left, width - tip.offsetWidth - 8))}px`;
  const below = place.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.top = `${below ? place.bottom + 6 : Math.max(4, place.top - tip.offsetHeight - 6)}px`;
}
const hideDefinition = () => { tip.hidden = true; };
for (const [event, act] of [["mouseover", showDefinition], ["focusin", showDefinition], ["click", showDefinition], ["mouseout", hideDefinition], ["focusout", hideDefinition]]) {
  document.addEventListener(event, ({target}) => { const term = target.closest?.(".term"); if (term) act(term); });
}
addEventListener("keydown", event => { if (event.key === "Escape") hideDefinition(); });
addEventListener("scroll", hideDefinition, {passive: true, capture: true});
