// Two sets of maps in one place, with a slider that wipes from one to the other: two nets, or two epochs of one.
const wipe = {open: byId("wipe-box"), place: byId("wipe"), sides: ["left", "right"].map(side => ({net: byId(`wipe-${side}`), epoch: byId(`wipe-${side}-epoch`)}))};
for (const [i, {net, epoch}] of wipe.sides.entries()) {
  for (const {name} of mapData.nets) net.append(new Option(name));
  for (const [j, number] of mapData.epochs.entries()) epoch.append(new Option(`epoch ${number}`, j));
  net.selectedIndex = Math.min(i, mapData.nets.length - 1);
  epoch.value = i === 0 && mapData.nets.length === 1 ? 0 : mapData.epochs.length - 1;  // of one net: untrained and trained
}
async function drawWipe() {
  if (!wipe.open.open) return;
  const canvas = byId("wipe-maps"), request = wipe.request = {}, cut = wipe.place.value / 100;
  const selected = wipe.sides.map(({net, epoch}) => mapData.nets[net.selectedIndex].stages[state.stage] && {...mapData.nets[net.selectedIndex].stages[state.stage], epoch: mapData.epochs[epoch.value]});
  const entries = selected.map(stage => stage?.epochs[stage.epoch] && {text: stage.epochs[stage.epoch], shape: stage.shape});
  const missing = entries.findIndex(entry => !entry);
  byId("wipe-note").textContent = missing < 0 ? "" : `${wipe.sides[missing].net.value} has no saved maps of ${state.stage} at this epoch`;
  canvas.hidden = missing >= 0;
  if (missing >= 0) return;
  const [left, right] = await Promise.all(entries.map(({text, shape}) => decodeMaps(text, shape)));
  if (wipe.request !== request) return;  // a newer request came meanwhile
  const limits = mapData.scales[state.stage], channels = Array.from({length: Math.min(left.k, right.k)}, (_, k) => k);
  const image = Math.min(state.image, left.n - 1, right.n - 1);
  const drawer = k => (context, x, y, side) => {
    const [first, second] = [left, right].map(maps => drawMap(maps, image, k, state.scale === "shared" ? limits : null, "map"));
    drawContained(context, first, x, y, side);
    context.save(); context.beginPath(); context.rect(x + cut * side, y, side, side); context.clip();
    context.clearRect(x, y, side, side); drawContained(context, second, x, y, side); context.restore();
    context.fillStyle = "#fff"; context.fillRect(x + cut * side - 1, y, 2, side);
  };
  drawTiles(canvas, channels.map(drawer), canvas.parentNode.clientWidth > 620 ? 8 : 4, state.channel, channels.map(String));
  const names = wipe.sides.map(({net, epoch}) => `${net.value}, ${epoch.selectedOptions[0].text}`);
  canvas.setAttribute("aria-label", `${state.stage}, image ${image}: left of the line ${names[0]}, right of it ${names[1]}`);
}
for (const control of [wipe.place, ...wipe.sides.flatMap(Object.values)]) control.addEventListener("input", drawWipe);
wipe.open.addEventListener("toggle", drawWipe);
