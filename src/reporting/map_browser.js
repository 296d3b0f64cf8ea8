// The browser of feature maps: decodes the maps of the page and draws any stage, epoch, image and channel of all nets
// together, on one colour scale or on one per map.
const mapData = JSON.parse(document.getElementById("maps-data").textContent);
const MISSING = 255, STEPS = 254;  // levels of a quantized map, as in inline_data.py
const stageNames = [...new Set(mapData.nets.flatMap(net => Object.keys(net.stages)))].sort((a, b) => a.localeCompare(b, undefined, {numeric: true}));
// what is shown; epoch is an index into mapData.epochs
const state = {stage: stageNames[0], epoch: mapData.epochs.length - 1, image: 0, channel: 0, view: "map", scale: "shared", order: "number", net: 0};
const hasAnalysis = net => Boolean(net.analysis?.stages);
const stageAnalysis = net => net.analysis?.stages?.[state.stage];
const showsMetamers = () => state.view === "metamers";
const showsChange = () => state.view === "change" || state.view === "change_after_inverse";

// --- decoding ---
const decoded = new Map();  // text or key → promise of its content, so that each is decoded once
function decodeOnce(key, decode) {
  if (!decoded.has(key)) decoded.set(key, decode());
  return decoded.get(key);
}
// maps → {n, k, p, q, limits: minimum and maximum of each map, levels: a byte per pixel}
function decodeMaps(text, [n, k, p, q]) {
  return decodeOnce(text, async () => {
    const buffer = await decompress(text);
    return {n, k, p, q, limits: new Float32Array(buffer, 0, 2 * n * k), levels: new Uint8Array(buffer, 8 * n * k)};
  });
}
// images → canvases
function decodeImages(pixels, count, c, h, w) {
  return decodeOnce(pixels, async () => {
    const bytes = new Uint8Array(await decompress(pixels));
    return Array.from({length: count}, (_, i) => decodeImage(bytes, i, c, h, w));
  });
}
function imagesOf(net) {
  const {shape: [n, c, h, w], pixels} = mapData.images[net.images];
  return decodeImages(pixels, n, c, h, w);
}
// image i of many with interleaved channels
function decodeImage(bytes, i, c, h, w) {
  const picture = new ImageData(w, h);
  for (let pixel = 0; pixel < h * w; pixel++) {
    for (let rgb = 0; rgb < 3; rgb++) picture.data[4 * pixel + rgb] = bytes[(i * h * w + pixel) * c + Math.min(rgb, c - 1)];
    picture.data[4 * pixel + 3] = 255;
  }
  return toCanvas(picture);
}
function toCanvas(picture) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}
const limitsOf = (maps, index) => maps.limits.subarray(2 * index, 2 * index + 2);
function valueAt(maps, image, channel, pixel) {
  const index = image * maps.k + channel, [low, high] = limitsOf(maps, index);
  const level = maps.levels[index * maps.p * maps.q + pixel];
  return level === MISSING ? null : low + level / STEPS * (high - low);
}

// --- drawing ---
// one map as a small canvas; colours: name of a colour scale, or "overlay": red, more opaque for larger values
function drawMap(maps, image, channel, limits, colours) {
  const [bottom, top] = limits ?? limitsOf(maps, image * maps.k + channel);
  const picture = new ImageData(maps.q, maps.p);
  for (let pixel = 0; pixel < maps.p * maps.q; pixel++) {
    const value = valueAt(maps, image, channel, pixel);
    if (value === null) continue;  // stays transparent
    const share = Math.min(1, Math.max(0, (value - bottom) / Math.max(top - bottom, 1e-30)));
    const rgba = colours === "overlay" ? [255, 70, 0, 0.85 * 255 * share] : [...mapData.colours[colours][Math.round(255 * share)], 255];
    picture.data.set(rgba, 4 * pixel);
  }
  return toCanvas(picture);
}
// a picture inside a square, keeping its proportions
function drawContained(context, picture, left, top, side) {
  const scale = side / Math.max(picture.width, picture.height), width = picture.width * scale, height = picture.height * scale;
  context.drawImage(picture, left + (side - width) / 2, top + (side - height) / 2, width, height);
}
// a map over its image, its first unit centred at start, its units stride apart
function drawOverlay(context, image, map, [start, stride], left, top, side) {
  const scale = side / Math.max(image.width, image.height), offset = (start - stride / 2) * scale;
  drawContained(context, image, left, top, side);
  context.save(); context.beginPath(); context.rect(left, top, image.width * scale, image.height * scale); context.clip();
  context.drawImage(map, left + offset, top + offset, map.width * stride * scale, map.height * stride * scale); context.restore();
}
// Draws tiles in rows; returns a function that finds the tile of a mouse event, and the position in it from 0 to 1.
function drawTiles(canvas, drawers, columns, selected, labels) {
  const density = devicePixelRatio || 1, width = canvas.parentNode.clientWidth, gap = 4, labelHeight = labels ? 15 : 0;
  const side = Math.floor((width - gap * (columns - 1)) / columns), rows = Math.ceil(drawers.length / columns);
  const height = rows * (side + labelHeight + gap), style = getComputedStyle(document.body);
  canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
  canvas.width = width * density; canvas.height = height * density;
  const context = canvas.getContext("2d");
  context.scale(density, density); context.imageSmoothingEnabled = false; context.font = "11px system-ui, sans-serif";
  const tiles = drawers.map((draw, i) => {
    const left = (i % columns) * (side + gap), top = Math.floor(i / columns) * (side + labelHeight + gap) + labelHeight;
    if (labels) { context.fillStyle = style.getPropertyValue("--soft"); context.fillText(labels[i], left + 1, top - 4); }
    draw(context, left, top, side);
    if (i === selected) { context.strokeStyle = style.getPropertyValue("--mark"); context.lineWidth = 3; context.strokeRect(left + 1.5, top + 1.5, side - 3, side - 3); }
    return {left, top};
  });
  return ({offsetX, offsetY}) => {
    const i = tiles.findIndex(({left, top}) => offsetX >= left && offsetX < left + side && offsetY >= top && offsetY < top + side);
    return i < 0 ? null : {i, x: (offsetX - tiles[i].left) / side, y: (offsetY - tiles[i].top) / side};
  };
}

// --- a card per net ---
// the maps of a net to show, with the limits and name of their colour scale; undefined where it has none
function selectedMaps(net) {
  if (showsChange()) {
    const change = stageAnalysis(net)?.[state.view], largest = largestChange();
    return change && {text: change.maps, shape: change.shape, limits: [-largest, largest], colours: "change"};
  }
  const entry = net.stages[state.stage], text = entry?.epochs[mapData.epochs[state.epoch]];
  return text && {text, shape: entry.shape, limits: mapData.scales[state.stage], colours: state.view === "overlay" ? "overlay" : "map"};
}
const largestChange = () => Math.max(1e-6, ...mapData.nets.map(net => stageAnalysis(net)?.change?.largest ?? 0));
function channelOrder(net, count) {
  const order = state.order === "selective" ? stageAnalysis(net)?.order : null;
  return (order ?? Array.from({length: count}, (_, k) => k)).filter(k => k < count);
}
// "3", "3 dead", "3 = 1" (a duplicate of channel 1)
function channelLabel(net, k) {
  const facts = stageAnalysis(net)?.facts?.[k];
  return `${k}` + (facts?.[0] === 0 ? " dead" : "") + (facts?.[3] >= 0 ? ` = ${facts[3]}` : "");
}
const cards = mapData.nets.map(net => {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const grid = document.createElement("canvas"), note = document.createElement("p"), strip = document.createElement("canvas");
  caption.textContent = net.name; note.className = "soft";
  for (const canvas of [grid, strip]) Object.assign(canvas, {role: "img", ariaLabel: `maps of ${net.name}`});
  figure.append(caption, grid, note, strip);
  byId("maps").append(figure);
  return {net, figure, grid, note, strip, visible: false};
});
// what a card shows, decoded ahead, so that printing, which does not wait, can draw it
function decodeCard({net}) {
  if (showsMetamers()) return metamersOf(net) && picturesOf(metamersOf(net));
  const selected = selectedMaps(net);
  if (selected) decodeMaps(selected.text, selected.shape);
}
async function drawCard(card) {
  if (showsMetamers()) return drawMetamers(card);
  const {net, figure, grid, note, strip} = card, request = card.request = {}, selected = selectedMaps(net);
  for (const canvas of [grid, strip]) canvas.hidden = !selected;
  if (!selected) { note.textContent = state.stage in net.stages ? "not saved for this net" : "has no such stage"; return; }
  const [maps, images] = await Promise.all([decodeMaps(selected.text, selected.shape), imagesOf(net)]);
  if (card.request !== request) return;  // a newer request came meanwhile
  const isOverlay = selected.colours === "overlay";
  const channel = Math.min(state.channel, maps.k - 1), image = Math.min(state.image, maps.n - 1);
  const limits = (i, k) => {
    if (state.scale === "shared") return selected.limits;
    const largest = Math.max(...limitsOf(maps, i * maps.k + k).map(Math.abs));
    return showsChange() ? [-largest, largest] : null;
  };
  const drawer = (i, k) => (context, left, top, side) => {
    const map = drawMap(maps, i, k, limits(i, k), selected.colours);
    if (isOverlay) drawOverlay(context, images[i], map, net.geometry[state.stage] ?? [0.5, 1], left, top, side);
    else drawContained(context, map, left, top, side);
  };
  const columns = Math.min(maps.k, figure.clientWidth > 620 ? 8 : 4);
  const channels = channelOrder(net, maps.k), imageNumbers = Array.from({length: maps.n}, (_, i) => i);
  const tileInGrid = drawTiles(grid, channels.map(k => drawer(image, k)), columns, channels.indexOf(channel), channels.map(k => channelLabel(net, k)));
  const tileInStrip = drawTiles(strip, imageNumbers.map(i => drawer(i, channel)), columns === 8 ? 8 : 4, image);
  const shown = showsChange() ? `saved net, change under the shift${state.view === "change" ? "" : ", shifted back"}` : `epoch ${mapData.epochs[state.epoch]}`;
  note.textContent = `${state.stage}, ${shown}; below: channel ${channel} on every image`;
  grid.setAttribute("aria-label", `${net.name}, ${state.stage}, ${shown}, image ${image}: maps of ${maps.k} channels, ${maps.p} by ${maps.q}`);
  strip.setAttribute("aria-label", `${net.name}, ${state.stage}, ${shown}: channel ${channel} on ${maps.n} images`);
  const showValue = (tile, i, k) => byId("readout").textContent = tile && !isOverlay ? valueText(net, maps, tile, i, k) : "";
  grid.onmousemove = event => { const tile = tileInGrid(event); showValue(tile, image, channels[tile?.i]); };
  strip.onmousemove = event => { const tile = tileInStrip(event); showValue(tile, tile?.i, channel); };
  grid.onclick = event => { const tile = tileInGrid(event); if (tile) update({channel: channels[tile.i]}); };
  strip.onclick = event => { const tile = tileInStrip(event); if (tile) update({image: tile.i}); };
}
// of a stage, or of its last layer that has some
function metamersOf({metamers = {}}) {
  const layer = [state.stage, ...Object.keys(metamers).filter(name => name.startsWith(`${state.stage}.`)).reverse()].find(name => metamers[name]);
  return layer && {layer, image: metamers.image, ...metamers[layer]};
}
// the images, and their metamers
function picturesOf({image, shape, pixels}) {
  const [rows, starts, ...size] = shape;
  return Promise.all([decodeImages(image.pixels, rows, ...size), decodeImages(pixels, rows * starts, ...size)]);
}
async function drawMetamers({net, figure, grid, note, strip}) {
  const found = metamersOf(net);
  grid.hidden = !found; strip.hidden = true; grid.onclick = grid.onmousemove = null;
  if (!found) { note.textContent = `metamers of ${state.stage} were not measured`; return; }
  const [images, metamers] = await picturesOf(found), [rows, starts] = found.shape;
  if (!showsMetamers()) return;  // another view was chosen meanwhile
  const drawer = (picture, crossed) => (context, left, top, side) => {
    drawContained(context, picture, left, top, side);
    if (!crossed) return;
    context.strokeStyle = "#d62728"; context.lineWidth = 2; context.beginPath();
    context.moveTo(left, top); context.lineTo(left + side, top + side); context.moveTo(left + side, top); context.lineTo(left, top + side);
    context.stroke();
  };
  const tiles = images.flatMap((image, i) => [["image", drawer(image)], ...found.reached[i].map((reached, j) => [reached ? "metamer" : "not reached", drawer(metamers[i * starts + j], !reached)])]);
  const blocks = Math.max(1, Math.floor(figure.clientWidth / (62 * (1 + starts))));
  drawTiles(grid, tiles.map(([, draw]) => draw), Math.min(rows, blocks) * (1 + starts), -1, tiles.map(([label]) => label));
  note.textContent = `${found.layer}, saved net: ${found.reached.flat().filter(Boolean).length} of ${rows * starts} reached the target`;
  grid.setAttribute("aria-label", `${net.name}, ${found.layer}: ${rows} images, each followed by ${starts} metamers`);
}
// the value under the mouse, in words
function valueText(net, maps, {x, y}, image, channel) {
  const side = Math.max(maps.p, maps.q), row = Math.floor(y * side - (side - maps.p) / 2), column = Math.floor(x * side - (side - maps.q) / 2);
  if (row < 0 || row >= maps.p || column < 0 || column >= maps.q) return "";
  const value = valueAt(maps, image, channel, row * maps.q + column);
  return `${net.name}: channel ${channel}, row ${row}, column ${column}: ${value === null ? "shifted out of the frame" : value.toPrecision(3)}`;
}

// --- controls ---
async function drawImageButtons() {
  const images = await imagesOf(mapData.nets[0]);
  byId("images").replaceChildren(...images.map((image, i) => {
    const button = document.createElement("button"), canvas = toCanvas(image.getContext("2d").getImageData(0, 0, image.width, image.height));
    button.type = "button"; button.setAttribute("aria-label", `image ${i}`); button.setAttribute("aria-pressed", i === state.image);
    button.append(canvas); button.addEventListener("click", () => update({image: i}));
    return button;
  }));
}
function legendText() {
  if (showsMetamers()) return "After each image, images that were noise and were changed until this layer has the same activation as for it: to the layer, and all after it, they are the image. Crossed out: those that did not get there.";
  const ownScale = state.scale === "own";
  if (showsChange()) {
    const shift = mapData.nets.find(net => net.analysis?.shift)?.analysis.shift, isInverse = state.view === "change_after_inverse";
    return `Image shifted by ${shift?.[1]} px to the right: map of the shifted image${isInverse ? ", shifted back," : ""} minus map of the image, in the saved net. ` +
      (isInverse ? "White: the map moved with the image (equivariant)" : "White: no change (invariant)") +
      (ownScale ? "." : `; full colours: ±${largestChange().toPrecision(2)}, the same for ${state.stage} in all nets.`);
  }
  const [dark, bright] = state.view === "overlay" ? ["Clear", "red"] : ["Dark", "yellow"];
  if (ownScale) return `${dark}: minimum of each map, ${bright}: its maximum.`;
  const [low, high] = mapData.scales[state.stage];
  return `${dark}: ${low.toPrecision(2)}, ${bright}: ${high.toPrecision(2)} or above, the same for ${state.stage} in all epochs and nets.`;
}
function drawAll() {
  const epoch = mapData.epochs[state.epoch];
  for (const control of ["stage", "epoch", "view", "scale", "order"]) if (byId(control)) byId(control).value = state[control];
  byId("epoch").disabled = byId("play").disabled = showsChange() || showsMetamers();
  byId("epoch-shown").textContent = byId("epoch").disabled ? "saved net" : epoch; byId("epoch").setAttribute("aria-valuetext", `epoch ${epoch}`);
  byId("legend").textContent = legendText();
  for (const card of cards) (card.visible ? drawCard : decodeCard)(card);
  drawAnalysis();
  [...byId("images").children].forEach((button, i) => button.setAttribute("aria-pressed", i === state.image));
}
function update(changes) {
  Object.assign(state, changes);
  drawAll(); drawWipe();
  if ("epoch" in changes) markEpoch(mapData.epochs[state.epoch]);
}
function step(what, by) {
  const wrap = (value, count) => (value + count) % count;
  const net = cards[0].net, [n, k] = (net.stages[state.stage] ?? Object.values(net.stages)[0]).shape;
  if (what === "epoch") update({epoch: wrap(state.epoch + by, mapData.epochs.length)});
  if (what === "stage") update({stage: stageNames[wrap(stageNames.indexOf(state.stage) + by, stageNames.length)]});
  if (what === "image") update({image: wrap(state.image + by, n)});
  if (what === "channel") {
    const channels = channelOrder(net, k);
    update({channel: channels[wrap(channels.indexOf(Math.min(state.channel, k - 1)) + by, k)]});
  }
}
for (const name of stageNames) byId("stage").append(new Option(name));
byId("epoch").max = mapData.epochs.length - 1;
byId("epoch").addEventListener("input", () => update({epoch: +byId("epoch").value}));
for (const control of ["stage", "view", "scale", "order"]) byId(control).addEventListener("change", () => update({[control]: byId(control).value}));
if (!mapData.nets.some(hasAnalysis)) {
  for (const option of [...byId("view").options].filter(({value}) => value.startsWith("change"))) option.remove();
  byId("order").parentNode.remove();
}
if (!mapData.nets.some(({metamers}) => metamers?.image)) byId("view").querySelector("[value=metamers]").remove();
const STEP_OF_KEY = {ArrowLeft: ["epoch", -1], ArrowRight: ["epoch", 1], ArrowUp: ["stage", -1], ArrowDown: ["stage", 1], i: ["image", -1], k: ["image", 1], j: ["channel", -1], l: ["channel", 1]};
byId("maps").addEventListener("keydown", event => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === "s") update({scale: state.scale === "shared" ? "own" : "shared"});
  else if (STEP_OF_KEY[key]) step(...STEP_OF_KEY[key]);
  else return;
  event.preventDefault();
});
let timer = null;
byId("play").addEventListener("click", () => {
  timer = timer ? clearInterval(timer) : setInterval(() => step("epoch", 1), 700);
  byId("play").textContent = timer ? "stop" : "play"; byId("play").setAttribute("aria-pressed", !!timer);
});

// cards are drawn when they come near the screen, and again when the width changes
const cardObserver = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(({target}) => {
  const card = cards.find(({figure}) => figure === target);
  cardObserver.unobserve(target); card.visible = true; drawCard(card);
}), {rootMargin: "400px"});
for (const {figure} of cards) cardObserver.observe(figure);
let drawnWidth = 0;
new ResizeObserver(() => {
  if (byId("maps").clientWidth !== drawnWidth) { drawnWidth = byId("maps").clientWidth; drawAll(); drawWipe(); }
}).observe(byId("maps"));
drawImageButtons();
