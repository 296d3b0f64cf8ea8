// The browser of feature maps: packed numbers become pictures here, so that any stage, epoch, image and channel of all
// nets can be looked at together, on one colour scale or on each map's own.
const atlas = JSON.parse(document.getElementById("maps-data").textContent);
const part = id => document.getElementById(id);
const bytes = text => Uint8Array.from(atob(text), one => one.charCodeAt(0));
const NOTHING = 255, STEPS = 254;  // of a packed map's levels
const stages = [...new Set(atlas.nets.flatMap(net => Object.keys(net.stages)))].sort((a, b) => a.localeCompare(b, undefined, {numeric: true}));
const look = {stage: stages[0], epoch: atlas.epochs.length - 1, image: 0, channel: 0, view: "map", scale: "shared", order: "number", net: 0};

const unpacked = new Map();
async function inflated(text) {
  const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
// text → {n, k, p, q, ends: low and high of each map, levels: a byte a pixel}
function unpack(text, [n, k, p, q]) {
  if (!unpacked.has(text)) unpacked.set(text, inflated(text).then(buffer =>
    ({n, k, p, q, ends: new Float32Array(buffer, 0, 2 * n * k), levels: new Uint8Array(buffer, 8 * n * k)})));
  return unpacked.get(text);
}
async function unpackedImages(key) {
  const {shape: [n, c, h, w], pixels} = atlas.images[key];
  if (!unpacked.has(key)) unpacked.set(key, inflated(pixels).then(buffer => {
    const source = new Uint8Array(buffer);
    return Array.from({length: n}, (_, i) => coloured(source, i, c, h, w));
  }));
  return unpacked.get(key);
}
// picture i of many, whose pixels have c channels, one after the other
function coloured(source, i, c, h, w) {
  const picture = new ImageData(w, h);
  for (let j = 0; j < h * w; j++) {
    for (let one = 0; one < 3; one++) picture.data[4 * j + one] = source[(i * h * w + j) * c + Math.min(one, c - 1)];
    picture.data[4 * j + 3] = 255;
  }
  return still(picture);
}
function still(picture) {  // an image that can be drawn at any size
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

// one map of a pack as a small canvas in the colours of a table; "veil": red, the stronger the more opaque
function tile(maps, image, channel, ends, colours) {
  const at = image * maps.k + channel, [low, high] = maps.ends.subarray(2 * at, 2 * at + 2);
  const [bottom, top] = ends ?? [low, high], picture = new ImageData(maps.q, maps.p), size = maps.p * maps.q;
  for (let i = 0; i < size; i++) {
    const level = maps.levels[at * size + i], value = low + level / STEPS * (high - low);
    const share = Math.min(1, Math.max(0, (value - bottom) / Math.max(top - bottom, 1e-30)));
    if (level === NOTHING) continue;  // stays clear
    picture.data.set(colours === "veil" ? [255, 70, 0, 0.85 * 255 * share] : [...atlas.colours[colours][Math.round(255 * share)], 255], 4 * i);
  }
  return still(picture);
}
function valueAt(maps, image, channel, i) {
  const at = image * maps.k + channel, [low, high] = maps.ends.subarray(2 * at, 2 * at + 2);
  const level = maps.levels[at * maps.p * maps.q + i];
  return level === NOTHING ? null : low + level / STEPS * (high - low);
}
// what is looked at of a net: its pack, the ends of its colours
function shown(net) {
  const changes = look.view === "moved" || look.view === "back";
  if (!changes) {
    const entry = net.stages[look.stage], text = entry?.epochs[atlas.epochs[look.epoch]];
    return text && {text, shape: entry.shape, ends: atlas.scales[look.stage], colours: look.view === "over" ? "veil" : "map"};
  }
  const entry = net.inside?.stages?.[look.stage]?.[look.view], most = mostChange();
  return entry && {text: entry.maps, shape: entry.shape, ends: [-most, most], colours: "change"};
}
const mostChange = () => Math.max(1e-6, ...atlas.nets.map(net => net.inside?.stages?.[look.stage]?.moved?.most ?? 0));
// the channels of a stage in the order asked for
function ordered(net, count) {
  const order = look.order === "selective" ? net.inside?.stages?.[look.stage]?.order : null;
  return (order ?? Array.from({length: count}, (_, k) => k)).filter(k => k < count);
}
function named(net, k) {
  const facts = net.inside?.stages?.[look.stage]?.facts?.[k];
  return `${k}` + (facts?.[0] === 0 ? " dead" : "") + (facts?.[3] >= 0 ? ` = ${facts[3]}` : "");
}

const cards = atlas.nets.map(net => {
  const card = document.createElement("figure"), caption = document.createElement("figcaption");
  const grid = document.createElement("canvas"), note = document.createElement("p"), strip = document.createElement("canvas");
  caption.textContent = net.name; note.className = "soft";
  for (const canvas of [grid, strip]) canvas.setAttribute("role", "img");
  card.append(caption, grid, note, strip);
  part("maps").append(card);
  return {net, card, grid, note, strip, seen: false};
});

// Draw tiles in rows; gives for a point of the canvas the tile and the place in it.
function lay(canvas, tiles, columns, chosen, labels) {
  const dense = devicePixelRatio || 1, width = canvas.parentNode.clientWidth, gap = 4, head = labels ? 15 : 0;
  const side = Math.floor((width - gap * (columns - 1)) / columns), rows = Math.ceil(tiles.length / columns);
  const style = getComputedStyle(document.body);
  canvas.style.width = `${width}px`; canvas.style.height = `${rows * (side + head + gap)}px`;
  canvas.width = width * dense; canvas.height = rows * (side + head + gap) * dense;
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense); pen.imageSmoothingEnabled = false; pen.font = "11px system-ui, sans-serif";
  const spots = tiles.map((draw, i) => {
    const left = (i % columns) * (side + gap), top = Math.floor(i / columns) * (side + head + gap) + head;
    if (labels) { pen.fillStyle = style.getPropertyValue("--soft"); pen.fillText(labels[i], left + 1, top - 4); }
    draw(pen, left, top, side);
    if (i === chosen) { pen.strokeStyle = style.getPropertyValue("--mark"); pen.lineWidth = 3; pen.strokeRect(left + 1.5, top + 1.5, side - 3, side - 3); }
    return {left, top, side};
  });
  return event => {
    const i = spots.findIndex(({left, top, side}) => event.offsetX >= left && event.offsetX < left + side && event.offsetY >= top && event.offsetY < top + side);
    return i < 0 ? null : {i, across: (event.offsetX - spots[i].left) / side, down: (event.offsetY - spots[i].top) / side};
  };
}
// a picture in a square, its sides in proportion
function fit(pen, picture, left, top, side) {
  const scale = side / Math.max(picture.width, picture.height), w = picture.width * scale, h = picture.height * scale;
  pen.drawImage(picture, left + (side - w) / 2, top + (side - h) / 2, w, h);
}

async function drawCard(one) {
  const {net, card, grid, note, strip} = one, turn = one.turn = {}, asked = shown(net);
  for (const canvas of [grid, strip]) canvas.hidden = !asked;
  if (!asked) { note.textContent = look.stage in net.stages ? "nothing kept of this" : "has no such stage"; return; }
  const [maps, images] = await Promise.all([unpack(asked.text, asked.shape), unpackedImages(net.images)]);
  if (one.turn !== turn) return;  // something else was asked for meanwhile
  const change = asked.colours === "change", over = asked.colours === "veil";
  const channel = Math.min(look.channel, maps.k - 1), image = Math.min(look.image, maps.n - 1);
  const ends = (i, k) => {
    if (look.scale === "shared") return asked.ends;
    const at = 2 * (i * maps.k + k), most = Math.max(...maps.ends.subarray(at, at + 2).map(Math.abs));
    return change ? [-most, most] : null;
  };
  const [start, jump] = net.places[look.stage] ?? [0.5, 1];
  const put = (i, k) => (pen, left, top, side) => {
    const picture = tile(maps, i, k, ends(i, k), asked.colours);
    if (!over) return fit(pen, picture, left, top, side);
    veil(pen, images[i], picture, start, jump, left, top, side);
  };
  const columns = Math.min(maps.k, card.clientWidth > 620 ? 8 : 4);
  const channels = ordered(net, maps.k), numbers = Array.from({length: maps.n}, (_, i) => i);
  const hit = lay(grid, channels.map(k => put(image, k)), columns, channels.indexOf(channel), channels.map(k => named(net, k)));
  const along = lay(strip, numbers.map(i => put(i, channel)), columns === 8 ? 8 : 4, image);
  note.textContent = `channel ${channel} on every image`;
  const what = change ? `kept net, change under the shift${look.view === "back" ? ", moved back" : ""}` : `epoch ${atlas.epochs[look.epoch]}`;
  grid.setAttribute("aria-label", `${net.name}, ${look.stage}, ${what}, image ${image}: maps of ${maps.k} channels, ${maps.p} by ${maps.q}`);
  strip.setAttribute("aria-label", `${net.name}, ${look.stage}, ${what}: channel ${channel} on ${maps.n} images`);
  const read = (where, i, k) => {
    if (!where || over) { part("readout").textContent = ""; return; }
    const fits = Math.max(maps.p, maps.q), row = Math.floor(where.down * fits - (fits - maps.p) / 2), column = Math.floor(where.across * fits - (fits - maps.q) / 2);
    const inside = row >= 0 && row < maps.p && column >= 0 && column < maps.q, value = inside ? valueAt(maps, i, k, row * maps.q + column) : null;
    part("readout").textContent = inside ? `${net.name}: channel ${k}, row ${row}, column ${column}: ${value === null ? "left the image" : value.toPrecision(3)}` : "";
  };
  grid.onmousemove = event => { const where = hit(event); read(where, image, channels[where?.i]); };
  strip.onmousemove = event => { const where = along(event); read(where, where?.i, channel); };
  grid.onclick = event => { const where = hit(event); if (where) choose({channel: channels[where.i]}); };
  strip.onclick = event => { const where = along(event); if (where) choose({image: where.i}); };
}
// a map over its image, its first unit where the ledger says that it looks
function veil(pen, input, picture, start, jump, left, top, side) {
  const scale = side / Math.max(input.width, input.height), at = (start - jump / 2) * scale;
  fit(pen, input, left, top, side);
  pen.save(); pen.beginPath(); pen.rect(left, top, input.width * scale, input.height * scale); pen.clip();
  pen.drawImage(picture, left + at, top + at, picture.width * jump * scale, picture.height * jump * scale); pen.restore();
}

async function drawImages() {
  const pictures = await unpackedImages(atlas.nets[0].images);
  part("images").replaceChildren(...pictures.map((picture, i) => {
    const button = document.createElement("button"), canvas = still(picture.getContext("2d").getImageData(0, 0, picture.width, picture.height));
    button.type = "button"; button.setAttribute("aria-label", `image ${i}`); button.setAttribute("aria-pressed", i === look.image);
    button.append(canvas); button.addEventListener("click", () => choose({image: i}));
    return button;
  }));
}

function drawAll() {
  const epoch = atlas.epochs[look.epoch], ends = atlas.scales[look.stage];
  part("stage").value = look.stage; part("epoch").value = look.epoch; part("view").value = look.view; part("scale").value = look.scale;
  if (part("order")) part("order").value = look.order;
  const kept = look.view === "moved" || look.view === "back", most = mostChange().toPrecision(2);
  part("epoch").disabled = part("play").disabled = kept;
  part("epoch-shown").textContent = kept ? "kept" : epoch; part("epoch").setAttribute("aria-valuetext", `epoch ${epoch}`);
  const shift = atlas.nets.find(net => net.inside?.shift)?.inside.shift;
  part("legend").textContent = kept ? `A shift of the image by ${shift?.[1]} px to the right: map of the shifted image${look.view === "back" ? ", moved back by as much," : ""} minus map of the image, in the kept net. ` +
    (look.view === "back" ? "White: the map only moved along (equivariant)" : "White: nothing changed (invariant)") + (look.scale === "own" ? "." : `; full colours: ±${most}, the same for ${look.stage} in all nets.`) : look.scale === "own" ? "Dark: a map's own least value, yellow: its largest." :
    `Dark: ${ends[0].toPrecision(2)}, yellow: ${ends[1].toPrecision(2)} or above, the same for ${look.stage} in all epochs and nets.`;
  if (look.view === "over") part("legend").textContent = part("legend").textContent.replace("Dark", "Clear").replace("yellow", "red");
  for (const one of cards) if (one.seen) drawCard(one);
  drawInside();
  [...part("images").children].forEach((button, i) => button.setAttribute("aria-pressed", i === look.image));
}
const wrap = (value, count) => (value + count) % count;
function choose(what) { Object.assign(look, what); drawAll(); }
function step(what, by) {
  const net = cards[0].net.stages[look.stage] ?? Object.values(cards[0].net.stages)[0], [n, k] = net.shape;
  if (what === "epoch") choose({epoch: wrap(look.epoch + by, atlas.epochs.length)});
  if (what === "stage") choose({stage: stages[wrap(stages.indexOf(look.stage) + by, stages.length)]});
  if (what === "image") choose({image: wrap(look.image + by, n)});
  if (what === "channel") {
    const channels = ordered(cards[0].net, k);
    choose({channel: channels[wrap(channels.indexOf(Math.min(look.channel, k - 1)) + by, k)]});
  }
}

for (const name of stages) part("stage").append(new Option(name));
part("epoch").max = atlas.epochs.length - 1;
part("stage").addEventListener("change", () => choose({stage: part("stage").value}));
part("epoch").addEventListener("input", () => choose({epoch: +part("epoch").value}));
part("view").addEventListener("change", () => choose({view: part("view").value}));
part("order").addEventListener("change", () => choose({order: part("order").value}));
if (!atlas.nets.some(net => net.inside?.stages)) {
  for (const one of [...part("view").options].slice(2)) one.remove();
  part("order").parentNode.remove();
}
part("scale").addEventListener("change", () => choose({scale: part("scale").value}));
const keys = {ArrowLeft: ["epoch", -1], ArrowRight: ["epoch", 1], ArrowUp: ["stage", -1], ArrowDown: ["stage", 1], i: ["image", -1], k: ["image", 1], j: ["channel", -1], l: ["channel", 1]};
part("maps").addEventListener("keydown", event => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === "s") choose({scale: look.scale === "shared" ? "own" : "shared"});
  else if (keys[key]) step(...keys[key]);
  else return;
  event.preventDefault();
});
let playing = null;
part("play").addEventListener("click", () => {
  playing = playing ? clearInterval(playing) : setInterval(() => step("epoch", 1), 700);
  part("play").textContent = playing ? "stop" : "play"; part("play").setAttribute("aria-pressed", !!playing);
});
const near = new IntersectionObserver(found => found.filter(one => one.isIntersecting).forEach(({target}) => {
  const one = cards.find(({card}) => card === target);
  near.unobserve(target); one.seen = true; drawCard(one);
}), {rootMargin: "400px"});
for (const {card} of cards) near.observe(card);
let width = 0;
new ResizeObserver(() => { if (part("maps").clientWidth !== width) { width = part("maps").clientWidth; drawAll(); } }).observe(part("maps"));
drawImages();
