// The live net: two nets side by side, run on one image that is dragged, turned, drawn on or replaced.
const liveData = JSON.parse(byId("live-data").textContent);
const liveState = {right: 0, down: 0, angle: 0, noise: 0, border: "black", tool: "drag", view: "map"};
const liveWide = matchMedia("(min-width: 760px)"), LIVE_TILES = 16;  // maps of a stage that are drawn
// what is shown: images of the page, the chosen one, the drawn-on one, the transformed one; and the two nets
const live = {images: [], chosen: null, drawn: null, pixels: null, nets: [], noise: null, pending: false, times: []};

// --- images: channel by channel, as nets take them ---
function planesOf(bytes, [c, h, w], start = 0, stride = c) {
  return Float32Array.from({length: c * h * w}, (_, i) => bytes[start + (i % (h * w)) * stride + Math.floor(i / (h * w))]);
}
async function loadLiveImages(net) {
  const {shape: [n], pixels} = mapData.images[net.images], bytes = new Uint8Array(await decompress(pixels));
  return Array.from({length: n}, (_, i) => planesOf(bytes, net.image, i * sizeOf(net.image)));
}
// the middle square of a picture file
async function planesOfFile(file, [c, h, w]) {
  const bitmap = await createImageBitmap(file), canvas = document.createElement("canvas"), scale = Math.max(w / bitmap.width, h / bitmap.height);
  Object.assign(canvas, {width: w, height: h});
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high"; context.fillRect(0, 0, w, h);
  context.drawImage(bitmap, (w - scale * bitmap.width) / 2, (h - scale * bitmap.height) / 2, scale * bitmap.width, scale * bitmap.height);
  const rgba = context.getImageData(0, 0, w, h).data;
  if (c > 1) return planesOf(rgba, [c, h, w], 0, 4);
  return Float32Array.from({length: h * w}, (_, i) => Math.round(0.299 * rgba[4 * i] + 0.587 * rgba[4 * i + 1] + 0.114 * rgba[4 * i + 2]));
}
function drawPlanes(canvas, planes, [c, h, w]) {
  const picture = new ImageData(w, h);
  for (let i = 0; i < 4 * h * w; i++) picture.data[i] = i % 4 === 3 ? 255 : planes[Math.min(i % 4, c - 1) * h * w + (i >> 2)];
  [canvas.width, canvas.height] = [w, h];
  canvas.getContext("2d").putImageData(picture, 0, 0);
}
// where the pixel (x, y) of the transformed image comes from
function sourceOf(x, y, [, h, w]) {
  const radians = liveState.angle * Math.PI / 180, cos = Math.cos(radians), sin = Math.sin(radians);
  const across = x - (w - 1) / 2 - liveState.right, down = y - (h - 1) / 2 - liveState.down;
  return [cos * across - sin * down + (w - 1) / 2, sin * across + cos * down + (h - 1) / 2];
}
const PLACE = {  // of a pixel beyond the border of a side; -1: none
  black: (i, side) => i >= 0 && i < side ? i : -1, edge: (i, side) => Math.min(side - 1, Math.max(0, i)), wrap: (i, side) => ((i % side) + side) % side,
};
function transformImage(planes, image, out) {
  const [c, h, w] = image, place = PLACE[liveState.border];
  for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    const [sx, sy] = sourceOf(x, y, image), left = Math.floor(sx + 1e-9), top = Math.floor(sy + 1e-9);
    const fx = Math.max(0, sx - left), fy = Math.max(0, sy - top);
    for (let channel = 0; channel < c; channel++) {
      let value = 0;
      for (let corner = 0; corner < 4; corner++) {
        const weight = (corner & 1 ? fx : 1 - fx) * (corner & 2 ? fy : 1 - fy), row = place(top + (corner >> 1), h), column = place(left + (corner & 1), w);
        if (row >= 0 && column >= 0) value += weight * planes[(channel * h + row) * w + column];
      }
      const i = (channel * h + y) * w + x;
      out[i] = value + 255 * liveState.noise * live.noise[i];
    }
  }
}
// normal random numbers, the same every time, so that a frame differs from the last by what was changed alone
function fixedNoise(count) {
  let seed = 1;
  const uniform = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0, (seed + 1) / 4294967297);
  return Float32Array.from({length: count}, () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}

// --- errors, by the definitions of the measures ---
function squaredDistance(x, y) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += (x[i] - y[i]) * (x[i] - y[i]);
  return sum;
}
// the part of the output that is compared: the logits, or the position where there are none
const answerOf = ({classes, outputs}) => outputs.logits.data.subarray(0, classes.length || undefined);
const layersOf = net => ({pixels: net.pixels, ...Object.fromEntries(Object.entries(net.outputs).filter(([name]) => name !== "logits").map(([name, {data}]) => [name, data])), output: answerOf(net)});
function runOn(net, planes) { net.pixels.set(planes); net.run(); return layersOf(net); }
const distanceOf = (name, x, y) => name === "output" ? Math.sqrt(squaredDistance(x, y)) : squaredDistance(x, y);
// mean distance of every two images of the page, layer by layer; and the ends of each layer's values
function scalesOf(net, images) {
  const all = images.map(planes => Object.fromEntries(Object.entries(runOn(net, planes)).map(([name, data]) => [name, data.slice()])));
  return Object.fromEntries(Object.keys(all[0]).map(name => {
    let sum = 0, low = 0, high = 1e-6;
    for (const [i, one] of all.entries()) {
      for (const other of all.slice(0, i)) sum += distanceOf(name, one[name], other[name]);
      for (const value of one[name]) { low = Math.min(low, value); high = Math.max(high, value); }
    }
    return [name, {apart: sum / (all.length * (all.length - 1) / 2), low, high}];
  }));
}
function errorsOf(net) {
  return Object.fromEntries(Object.entries(layersOf(net)).map(([name, data]) => [name, distanceOf(name, data, net.reference[name]) / net.scales[name].apart]));
}
// the layers of the chosen image, which errors are distances to
function setReference(net) {
  net.reference = Object.fromEntries(Object.entries(runOn(net, live.chosen)).map(([name, data]) => [name, data.slice()]));
}

// --- drawing ---
// the maps of a stage side by side, a pixel per unit; shapes (1, k, p, q), or (1, k)
function drawStage(canvas, {data, shape}, reference, {low, high}) {
  const [, k, p = 1, q = 1] = shape, count = p * q === 1 ? k : Math.min(k, LIVE_TILES), columns = p * q === 1 ? Math.min(k, 32) : Math.min(count, liveWide.matches ? 8 : 4), rows = Math.ceil(count / columns);
  const width = columns * (q + 1) - 1, height = rows * (p + 1) - 1, picture = new ImageData(width, height), isChange = liveState.view === "change";
  const whole = new Uint32Array(picture.data.buffer);  // red in the lowest byte, as on every machine with a browser
  const colours = mapData.colours[isChange ? "change" : "map"], [bottom, top] = isChange ? [-high, high] : [low, high];
  for (let tile = 0; tile < count; tile++) for (let i = 0; i < p * q; i++) {
    const value = data[tile * p * q + i] - (isChange ? reference[tile * p * q + i] : 0), share = Math.min(1, Math.max(0, (value - bottom) / (top - bottom)));
    const x = (tile % columns) * (q + 1) + i % q, y = Math.floor(tile / columns) * (p + 1) + Math.floor(i / q), colour = colours[Math.round(255 * share)] ?? [0, 0, 0];
    whole[y * width + x] = 255 << 24 | colour[2] << 16 | colour[1] << 8 | colour[0];
  }
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(picture, 0, 0);
}
function liveElement(tag, className = "", text = "", ...children) {
  const created = document.createElement(tag);
  created.className = className; created.textContent = text; created.append(...children);
  return created;
}
const bar = () => liveElement("div", "live-meter", "", liveElement("i"));
const setBar = (meter, share) => { meter.firstChild.style.width = `${100 * Math.min(1, Math.max(0, share || 0))}%`; };
function softmaxOf(logits) {
  const most = Math.max(...logits), exps = [...logits].map(x => Math.exp(x - most)), sum = exps.reduce((a, b) => a + b);
  return exps.map(x => x / sum);
}
// (right, down) in pixels
const positionOf = net => [2, 1].map((axis, i) => (net.outputs.logits.data.at(i - 2) + 0.5) * net.image[axis]);
// a card per net: its answer, then the maps of its stages
function buildCard(net, which) {
  const card = liveElement("section", "live-card"), answers = liveElement("div", "live-answers"), position = liveElement("p", "soft");
  net.rows = net.classes.length ? [...net.classes.keys()].slice(0, net.classes.length > 12 ? 5 : 12).map(() => {
    const row = liveElement("div", "live-answer", "", liveElement("span"), liveElement("span"), bar());
    answers.append(row);
    return row;
  }) : [];
  net.position = position; net.canvases = {};
  card.setAttribute("aria-label", `${which} net`);
  card.append(liveElement("h3", "", net.name), answers, ...(net.localizes ? [position] : []));
  for (const [name, {shape: [, k, p = 1, q = 1]}] of Object.entries(net.outputs).filter(([name]) => name.startsWith("stage"))) {
    const canvas = net.canvases[name] = liveElement("canvas"), few = p * q > 1 && k > LIVE_TILES;
    canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", `maps of ${name} of the ${which} net, ${net.name}`);
    card.append(liveElement("p", "soft", `${name}: ${few ? `${LIVE_TILES} of ${k}` : k} channels, ${p}×${q}`), canvas);
  }
  return card;
}
function showAnswer(net) {
  if (net.rows.length) {
    const shares = softmaxOf(answerOf(net)), best = shares.indexOf(Math.max(...shares)), many = net.rows.length < shares.length;
    const order = many ? [...shares.keys()].sort((i, j) => shares[j] - shares[i]) : [...shares.keys()];
    net.answer = `${net.classes[best]} ${shares[best].toFixed(2)}`;
    net.rows.forEach((row, i) => {
      const [name, value, meter] = row.children;
      name.textContent = net.classes[order[i]]; value.textContent = shares[order[i]].toFixed(2); setBar(meter, shares[order[i]]);
      row.classList.toggle("best", order[i] === best);
    });
  }
  if (!net.localizes) return;
  const [right, down] = positionOf(net);
  net.place = `right ${right.toFixed(1)}, down ${down.toFixed(1)} px`;
  net.position.textContent = `position: ${net.place}; ${net === live.nets[0] ? "+" : "×"} on the image`;
}
function markPosition(net, i) {
  const context = byId("live-image").getContext("2d"), [x, y] = positionOf(net), arm = net.image[2] / 14;
  context.lineWidth = Math.max(1, net.image[2] / 40); context.strokeStyle = i ? "#E69F00" : "#56B4E9";
  context.beginPath();
  for (const [a, b] of i ? [[1, 1], [1, -1]] : [[1, 0], [0, 1]]) { context.moveTo(x - a * arm, y - b * arm); context.lineTo(x + a * arm, y + b * arm); }
  context.stroke();
}
// small errors keep a digit, so that exact invariance can be told from them
const errorText = error => !isFinite(error) ? "–" : error === 0 ? "0" : error < 0.0005 ? error.toExponential(0) : error.toFixed(3);
function buildErrors() {
  const heads = byId("live-errors").tHead.rows[0].cells, names = [...new Set(live.nets.flatMap(net => Object.keys(layersOf(net))))];
  live.nets.forEach((net, i) => { heads[i + 1].textContent = net.name; });
  names.push(names.splice(names.indexOf("features"), 1)[0], names.splice(names.indexOf("output"), 1)[0]);  // last, also where one net has more stages
  byId("live-errors").tBodies[0].replaceChildren(...names.map(name => {
    const row = document.createElement("tr"), head = liveElement("th", "", name);
    head.scope = "row"; row.dataset.layer = name;
    row.append(head, ...live.nets.map(() => liveElement("td", "", "", liveElement("span"), bar())));
    return row;
  }));
}
function showErrors() {
  const errors = live.nets.map(errorsOf);
  for (const row of byId("live-errors").tBodies[0].rows) errors.forEach((error, i) => {
    const [text, meter] = row.cells[i + 1].children, value = error[row.dataset.layer];
    text.textContent = value === undefined ? "" : errorText(value); setBar(meter, value);
  });
  return errors;
}

// --- a frame ---
function frame() {
  live.pending = false;
  const start = performance.now(), [net] = live.nets;
  transformImage(live.drawn, net.image, live.pixels);
  drawPlanes(byId("live-image"), live.pixels, net.image);
  for (const shown of live.nets) runOn(shown, live.pixels);
  const errors = showErrors();
  live.nets.forEach((shown, i) => {
    showAnswer(shown);
    if (shown.localizes) markPosition(shown, i);
    for (const [name, canvas] of Object.entries(shown.canvases)) drawStage(canvas, shown.outputs[name], shown.reference[name], shown.scales[name]);
  });
  live.times = [...live.times.slice(-19), performance.now() - start];
  const median = [...live.times].sort((a, b) => a - b)[live.times.length >> 1];
  byId("live-speed").textContent = `${median.toFixed(median < 10 ? 1 : 0)} ms for a frame of both nets on this machine`;
  clearTimeout(live.saying);  // a screen reader hears where a movement ends
  live.saying = setTimeout(() => {
    byId("live-said").textContent = live.nets.map((shown, i) => `${shown.name}: ${[shown.answer, shown.localizes && shown.place].filter(Boolean).join(", ")}, output moved by ${errorText(errors[i].output)}`).join("; ") + ".";
  }, 500);
}
function requestFrame() {
  for (const name of ["right", "down", "angle", "noise"]) { byId(`live-${name}`).value = liveState[name]; byId(`live-${name}-shown`).textContent = liveState[name].toFixed(name === "angle" ? 0 : 2); }
  if (!live.pending) { live.pending = true; requestAnimationFrame(frame); }
}
function changeLive(changes) { Object.assign(liveState, changes); requestFrame(); }

// --- choosing ---
function chooseLiveImage(planes, index = -1) {
  live.chosen = planes; live.drawn = planes.slice();
  [...byId("live-images").children].forEach((button, i) => button.setAttribute("aria-pressed", i === index));
  live.nets.forEach(setReference);
  requestFrame();
}
const netCache = new Map();  // name and place → a net that is ready to run; twice where it stands on both sides
async function readyNet(packed, side) {
  const key = `${side} ${packed.name}`;
  if (!netCache.has(key)) {
    const {name, image, classes, localizes, images} = packed, net = {name, image, classes, localizes, images, ...await unpackNet(packed)};
    net.scales = scalesOf(net, await loadLiveImages(packed));
    netCache.set(key, net);
  }
  return netCache.get(key);
}
const isLike = (one, other) => one.images === other.images && `${one.image}` === `${other.image}`;
async function chooseLiveNets() {
  const first = liveData.nets[byId("live-first").value], selected = byId("live-second").value;
  const others = [...liveData.nets.keys()].filter(i => isLike(liveData.nets[i], first));  // on the same images
  byId("live-second").replaceChildren(...others.map(i => new Option(liveData.nets[i].name, i)));
  byId("live-second").value = others.includes(+selected) && selected !== "" ? selected : others.find(i => liveData.nets[i] !== first) ?? others[0];
  const nets = [await readyNet(first, "first"), await readyNet(liveData.nets[byId("live-second").value], "second")];
  const isNew = !live.nets.length || !isLike(live.nets[0], nets[0]);
  live.nets = nets; live.times = [];
  byId("live-cards").replaceChildren(...nets.map((net, i) => buildCard(net, i ? "second" : "first")));
  buildErrors();
  if (!isNew) { nets.forEach(setReference); requestFrame(); return; }
  const size = sizeOf(first.image);
  Object.assign(live, {images: await loadLiveImages(first), pixels: new Float32Array(size), noise: fixedNoise(size)});
  byId("live-images").replaceChildren(...live.images.map((planes, i) => {
    const canvas = document.createElement("canvas"), button = liveElement("button", "", "", canvas);
    drawPlanes(canvas, planes, first.image);
    button.type = "button"; button.setAttribute("aria-label", `image ${i}`);
    button.addEventListener("click", () => chooseLiveImage(planes, i));
    return button;
  }));
  chooseLiveImage(live.images[0], 0);
}
async function takeLiveFile(file) {
  if (file?.type.startsWith("image/")) chooseLiveImage(await planesOfFile(file, live.nets[0].image));
}

// --- the pointer on the image ---
function pointerPlace({clientX, clientY}) {
  const box = byId("live-image").getBoundingClientRect(), [, h, w] = live.nets[0].image;
  return [(clientX - box.left) / box.width * w - 0.5, (clientY - box.top) / box.height * h - 0.5];
}
function drawAt(place) {
  const [c, h, w] = live.nets[0].image, [x, y] = sourceOf(...place, live.nets[0].image), radius = Math.max(0.8, w / 24), target = liveState.tool === "bright" ? 255 : 0;
  for (let row = 0; row < h; row++) for (let column = 0; column < w; column++) {
    const share = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(column - x, row - y)));
    for (let i = row * w + column; share && i < c * h * w; i += h * w) live.drawn[i] += share * (target - live.drawn[i]);
  }
  requestFrame();
}
function startLivePointer(canvas) {
  let last = null;
  const within = value => Math.min(8, Math.max(-8, value));
  canvas.addEventListener("pointerdown", event => { canvas.setPointerCapture(event.pointerId); last = pointerPlace(event); if (liveState.tool !== "drag") drawAt(last); });
  canvas.addEventListener("pointermove", event => {
    if (!last) return;
    const place = pointerPlace(event), moved = place.map((value, i) => value - last[i]);
    if (liveState.tool === "drag") changeLive({right: within(liveState.right + moved[0]), down: within(liveState.down + moved[1])});
    else for (let i = 1, n = Math.ceil(Math.hypot(...moved) * 2); i <= n; i++) drawAt(last.map((value, axis) => value + moved[axis] * i / n));
    last = place;
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { last = null; });
}
// built when it comes near the screen, so that the page's first paint does not wait for it
function startLive() {
  byId("live-work").hidden = false;
  liveData.nets.forEach((net, i) => byId("live-first").append(new Option(net.name, i)));
  for (const id of ["live-first", "live-second"]) byId(id).addEventListener("change", chooseLiveNets);
  for (const name of ["right", "down", "angle", "noise"]) byId(`live-${name}`).addEventListener("input", ({target}) => changeLive({[name]: +target.value}));
  for (const name of ["border", "tool", "view"]) byId(`live-${name}`).addEventListener("change", ({target}) => changeLive({[name]: target.value}));
  byId("live-file").addEventListener("change", ({target}) => takeLiveFile(target.files[0]));
  byId("live").addEventListener("dragover", event => event.preventDefault());
  byId("live").addEventListener("drop", event => { event.preventDefault(); takeLiveFile(event.dataTransfer.files[0]); });
  document.addEventListener("paste", ({clipboardData}) => takeLiveFile([...clipboardData.files][0]));
  byId("live-invert").addEventListener("click", () => chooseLiveImage(live.chosen.map(value => 255 - value)));
  byId("live-reset").addEventListener("click", () => { live.drawn = live.chosen.slice(); changeLive({right: 0, down: 0, angle: 0, noise: 0}); });
  startLivePointer(byId("live-image"));
  return chooseLiveNets();
}
let liveStarted = null;  // the promise of the first frame's nets
new IntersectionObserver(([entry], observer) => {
  if (entry.isIntersecting) { observer.disconnect(); liveStarted ??= startLive(); }
}, {rootMargin: "300px"}).observe(byId("live"));
