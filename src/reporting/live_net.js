// Runs nets in the page, in plain typed arrays: each step of a program, which net_program.py describes, becomes a
// function that reads and writes arrays of fixed size.
const sizeOf = shape => shape.reduce((product, side) => product * side, 1);
function stridesOf(shape) {  // of an array in row-major order
  const strides = new Array(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) strides[axis] = strides[axis + 1] * shape[axis + 1];
  return strides;
}
// flat places of all entries of a shape: the sum of a table's entry per axis; -1 where one of them is null
function placesOf(tables) {
  let places = [0];
  for (const table of tables) places = places.flatMap(start => table.map(step => start < 0 || step === null ? -1 : start + step));
  return Int32Array.from(places);
}
const stepsAlong = (shape, strides) => placesOf(shape.map((side, axis) => Array.from({length: side}, (_, i) => i * strides[axis])));
// where a broadcast array has the entries of a larger shape; null where both are the same
function broadcast(from, to) {
  if (from.length === to.length && from.every((side, axis) => side === to[axis])) return null;
  const own = stridesOf(from), lead = to.length - from.length;
  return stepsAlong(to, to.map((_, axis) => axis < lead || from[axis - lead] === 1 ? 0 : own[axis - lead]));
}

// --- operations of one, two and three values ---
// Abramowitz and Stegun 7.1.26 has an error of 1.5e-7
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const y = 1 - ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * Math.exp(-x * x);
  return x < 0 ? -y : y;
}
const sigmoid = x => 1 / (1 + Math.exp(-x));
const UNARY = {
  relu: () => x => x > 0 ? x : x === x ? 0 : x, exp: () => Math.exp, abs: () => Math.abs, sigmoid: () => sigmoid, tanh: () => Math.tanh,
  neg: () => x => -x, reciprocal: () => x => 1 / x, sqrt: () => Math.sqrt, rsqrt: () => x => 1 / Math.sqrt(x), log: () => Math.log,
  silu: () => x => x * sigmoid(x), erf: () => erf, trunc: () => Math.trunc, floor: () => Math.floor, square: () => x => x * x,
  logical_not: () => x => x ? 0 : 1, sin: () => Math.sin, cos: () => Math.cos,
  leaky_relu: ({slope}) => x => x > 0 ? x : slope * x,
  clamp: ({min, max}) => x => Math.min(max ?? Infinity, Math.max(min ?? -Infinity, x)),
  gelu: ({approximate}) => approximate === "tanh"
    ? x => x * sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    : x => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
};
const BINARY = {
  add: (x, y) => x + y, sub: (x, y) => x - y, mul: (x, y) => x * y, div: (x, y) => x / y, maximum: Math.max, minimum: Math.min,
  pow: Math.pow, remainder: (x, y) => x - y * Math.floor(x / y), atan2: Math.atan2, hypot: (x, y) => Math.sqrt(x * x + y * y),
  logaddexp: (x, y) => x === y ? x + Math.LN2 : Math.max(x, y) + Math.log1p(Math.exp(-Math.abs(x - y))),
  eq: (x, y) => +(x === y), ne: (x, y) => +(x !== y), gt: (x, y) => +(x > y), ge: (x, y) => +(x >= y), lt: (x, y) => +(x < y),
  le: (x, y) => +(x <= y), logical_and: (x, y) => +(x && y ? 1 : 0),
};
function unary(apply, {data: x}, {data: out}) {
  return () => { for (let i = 0; i < out.length; i++) out[i] = apply(x[i]); };
}
function binary(apply, first, second, {data: out, shape}) {
  const x = first.data, y = second.data, xPlaces = broadcast(first.shape, shape), yPlaces = broadcast(second.shape, shape);
  if (!xPlaces && !yPlaces) return () => { for (let i = 0; i < out.length; i++) out[i] = apply(x[i], y[i]); };
  if (!xPlaces && y.length === 1) return () => { const b = y[0]; for (let i = 0; i < out.length; i++) out[i] = apply(x[i], b); };
  return () => { for (let i = 0; i < out.length; i++) out[i] = apply(x[xPlaces ? xPlaces[i] : i], y[yPlaces ? yPlaces[i] : i]); };
}

// --- operations on maps (1, channels, rows, columns) ---
// the maps inside a border of zeros, so that windows need not be cut off
function paddedMaps({data, shape: [, channels, rows, columns]}, [top, left], fill) {
  if (!top && !left) return {maps: data, height: rows, width: columns, copy: () => {}};
  const height = rows + 2 * top, width = columns + 2 * left, maps = new Float32Array(channels * height * width).fill(fill);
  const copy = () => {
    for (let channel = 0, from = 0; channel < channels; channel++) {
      for (let row = 0; row < rows; row++, from += columns) maps.set(data.subarray(from, from + columns), (channel * height + row + top) * width + left);
    }
  };
  return {maps, height, width, copy};
}
// adds the products of a row of 3×3 windows; unrolled, as most of the time goes here
function addRow3(out, to, columns, maps, start, width, step, w, k) {
  const a = w[k], b = w[k + 1], c = w[k + 2], d = w[k + 3], e = w[k + 4], f = w[k + 5], g = w[k + 6], h = w[k + 7], i = w[k + 8];
  for (let column = 0, p = start, q = start + width, r = start + 2 * width; column < columns; column++, p += step, q += step, r += step) {
    out[to + column] += a * maps[p] + b * maps[p + 1] + c * maps[p + 2] + d * maps[q] + e * maps[q + 1] + f * maps[q + 2] +
      g * maps[r] + h * maps[r + 1] + i * maps[r + 2];
  }
}
// adds the products of a row of windows of any size
function addRow(out, to, columns, maps, start, step, w, k, offsets) {
  for (let tap = 0; tap < offsets.length; tap++) {
    const weight = w[k + tap], from = start + offsets[tap];
    for (let column = 0, p = from; column < columns; column++, p += step) out[to + column] += weight * maps[p];
  }
}
// adds four maps, each times its weight
function addMaps(out, to, pixels, maps, start, w, k, count) {
  const a = w[k], b = count > 1 ? w[k + 1] : 0, c = count > 2 ? w[k + 2] : 0, d = count > 3 ? w[k + 3] : 0;
  const second = start + (count > 1 ? pixels : 0), third = start + (count > 2 ? 2 * pixels : 0), fourth = start + (count > 3 ? 3 * pixels : 0);
  for (let i = 0; i < pixels; i++) out[to + i] += a * maps[start + i] + b * maps[second + i] + c * maps[third + i] + d * maps[fourth + i];
}
function convolution({stride: [down, right], padding, dilation: [apart, beside], groups}, [x, {data: w, shape: kernel}, {data: bias}], {data: out, shape}) {
  const {maps, height, width, copy} = paddedMaps(x, padding, 0), [outputs, inputs, tall, wide] = kernel, [, , rows, columns] = shape;
  const area = tall * wide, perGroup = outputs / groups, plane = height * width;
  const offsets = Int32Array.from({length: area}, (_, i) => Math.floor(i / wide) * apart * width + (i % wide) * beside);
  const is3 = tall === 3 && wide === 3 && apart === 1 && beside === 1, is1 = area === 1 && down === 1 && right === 1 && !padding[0] && !padding[1];
  return () => {
    copy();
    for (let output = 0; output < outputs; output++) {
      const to = output * rows * columns, first = Math.floor(output / perGroup) * inputs;
      out.fill(bias[output], to, to + rows * columns);
      if (is1) {
        for (let input = 0; input < inputs; input += 4) addMaps(out, to, plane, maps, (first + input) * plane, w, output * inputs + input, inputs - input);
        continue;
      }
      for (let input = 0; input < inputs; input++) {
        const k = (output * inputs + input) * area, from = (first + input) * plane;
        for (let row = 0; row < rows; row++) {
          const start = from + row * down * width;
          if (is3) addRow3(out, to + row * columns, columns, maps, start, width, right, w, k);
          else addRow(out, to + row * columns, columns, maps, start, right, w, k, offsets);
        }
      }
    }
  };
}
// maximum or mean of each window; what a window has outside the padded map is left out
function pool({kernel: [tall, wide], stride: [down, right], padding}, x, {data: out, shape: [, channels, rows, columns]}, isMax) {
  const {maps, height, width, copy} = paddedMaps(x, padding, isMax ? -Infinity : 0);
  return () => {
    copy();
    for (let channel = 0, i = 0; channel < channels; channel++) {
      for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++, i++) {
        const bottom = Math.min(height, row * down + tall), end = Math.min(width, column * right + wide);
        let value = isMax ? -Infinity : 0;
        for (let y = row * down; y < bottom; y++) for (let z = column * right; z < end; z++) {
          const pixel = maps[(channel * height + y) * width + z];
          value = isMax ? (pixel > value || pixel !== pixel ? pixel : value) : value + pixel;
        }
        out[i] = isMax ? value : value / (tall * wide);
      }
    }
  };
}

// --- operations over axes ---
const REDUCED = {
  sum: (x, start, offsets) => { let sum = 0; for (const offset of offsets) sum += x[start + offset]; return sum; },
  mean: (x, start, offsets) => REDUCED.sum(x, start, offsets) / offsets.length,
  max: (x, start, offsets) => { let most = -Infinity; for (const offset of offsets) most = Math.max(most, x[start + offset]); return most; },
  min: (x, start, offsets) => { let least = Infinity; for (const offset of offsets) least = Math.min(least, x[start + offset]); return least; },
  argmax: (x, start, offsets) => { let best = 0; for (let i = 1; i < offsets.length; i++) if (x[start + offsets[i]] > x[start + offsets[best]]) best = i; return best; },
};
function reduction({by, dims}, {data: x, shape}, {data: out}) {
  const strides = stridesOf(shape), isReduced = shape.map((_, axis) => !dims.length || dims.some(dim => (dim + shape.length) % shape.length === axis));
  const along = wanted => stepsAlong(shape.map((side, axis) => isReduced[axis] === wanted ? side : 1), strides);
  const starts = along(false), offsets = along(true), reduce = REDUCED[by];
  return () => { for (let i = 0; i < out.length; i++) out[i] = reduce(x, starts[i], offsets); };
}
// slices of an axis are far apart by what follows it
const around = (shape, dim) => [sizeOf(shape.slice(0, dim)), shape[dim], sizeOf(shape.slice(dim + 1))];
function softmax({dim}, {data: x, shape}, {data: out}) {
  const [before, count, after] = around(shape, dim);
  return () => {
    for (let outer = 0; outer < before; outer++) for (let inner = 0; inner < after; inner++) {
      const start = outer * count * after + inner;
      let most = -Infinity, sum = 0;
      for (let i = 0; i < count; i++) most = Math.max(most, x[start + i * after]);
      for (let i = 0; i < count; i++) sum += out[start + i * after] = Math.exp(x[start + i * after] - most);
      for (let i = 0; i < count; i++) out[start + i * after] /= sum;
    }
  };
}
function joined({dim}, parts, {data: out, shape}) {
  const [before, count, after] = around(shape, dim), starts = [];
  parts.reduce((start, part) => { starts.push(start); return start + part.shape[dim]; }, 0);
  return () => parts.forEach(({data, shape: own}, i) => {
    const length = own[dim] * after;
    for (let outer = 0; outer < before; outer++) out.set(data.subarray(outer * length, (outer + 1) * length), (outer * count + starts[i]) * after);
  });
}
// zero mean and unit variance of every `size` values in a row
function normalisation({size, eps}, {data: x}, {data: out}) {
  return () => {
    for (let start = 0; start < x.length; start += size) {
      let mean = 0, variance = 0;
      for (let i = start; i < start + size; i++) mean += x[i] / size;
      for (let i = start; i < start + size; i++) variance += (x[i] - mean) ** 2 / size;
      const scale = 1 / Math.sqrt(variance + eps);
      for (let i = start; i < start + size; i++) out[i] = (x[i] - mean) * scale;
    }
  };
}
// matrices (…, m, k) times (…, k, n)
function product(first, second, {data: out}) {
  const x = first.data, y = second.data, [m, k] = first.shape.slice(-2), n = second.shape.at(-1), batch = sizeOf(first.shape.slice(0, -2));
  return () => {
    out.fill(0);
    for (let matrix = 0; matrix < batch; matrix++) for (let row = 0; row < m; row++) {
      const to = (matrix * m + row) * n;
      for (let i = 0; i < k; i++) {
        const weight = x[(matrix * m + row) * k + i], from = (matrix * k + i) * n;
        for (let column = 0; column < n; column++) out[to + column] += weight * y[from + column];
      }
    }
  };
}
function move({tables, fill}, {data: x}, {data: out}) {
  const places = placesOf(tables), other = Number(fill);
  return () => { for (let i = 0; i < out.length; i++) out[i] = places[i] < 0 ? other : x[places[i]]; };
}
function choice([condition, first, second], out) {
  const chosen = {data: new Float32Array(out.data.length), shape: out.shape};
  const mark = binary((c, x) => c ? x : NaN, condition, first, chosen), places = broadcast(condition.shape, out.shape), others = broadcast(second.shape, out.shape);
  return () => {
    mark();
    for (let i = 0; i < out.data.length; i++) out.data[i] = condition.data[places ? places[i] : i] ? chosen.data[i] : second.data[others ? others[i] : i];
  };
}
const STEPS_OF = {
  conv: (step, inputs, out) => convolution(step, inputs, out), max_pool: (step, [x], out) => pool(step, x, out, true),
  avg_pool: (step, [x], out) => pool(step, x, out, false), reduce: (step, [x], out) => reduction(step, x, out),
  softmax: (step, [x], out) => softmax(step, x, out), cat: (step, inputs, out) => joined(step, inputs, out),
  normalise: (step, [x], out) => normalisation(step, x, out), product: (step, [x, y], out) => product(x, y, out),
  move: (step, [x], out) => move(step, x, out), where: (step, inputs, out) => choice(inputs, out),
};

// --- nets ---
// a half-precision number from its 16 bits
function halfToNumber(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}
// the constants: those in single precision first, then the low and the high bytes of those in half precision
function unpackConstants({shapes, single}, buffer) {
  const sizes = shapes.map(sizeOf), singles = single.reduce((sum, isSingle, i) => sum + (isSingle ? sizes[i] : 0), 0);
  const full = new Float32Array(buffer, 0, singles), bytes = new Uint8Array(buffer, 4 * singles), halves = bytes.length / 2;
  let place = 0, half = 0;
  return shapes.map((shape, i) => {
    if (single[i]) return {shape, data: full.subarray(place, place += sizes[i])};
    const data = Float32Array.from({length: sizes[i]}, (_, j) => halfToNumber(bytes[half + j] | bytes[halves + half + j] << 8));
    half += sizes[i];
    return {shape, data};
  });
}
// a net ready to run: set `pixels`, call `run`, read `outputs`: name of a layer → {data, shape}
function buildNet({image, steps, outputs}, constants) {
  const values = [{shape: [1, ...image], data: new Float32Array(sizeOf(image))}], runs = [];
  for (const step of steps) {
    const inputs = step.in.map(number => number < 0 ? constants[-1 - number] : values[number]);
    if (step.op === "view") { values.push({shape: step.shape, data: inputs[0].data}); continue; }
    const out = {shape: step.shape, data: new Float32Array(sizeOf(step.shape))};
    if (STEPS_OF[step.op]) runs.push(STEPS_OF[step.op](step, inputs, out));
    else if (UNARY[step.op]) runs.push(unary(UNARY[step.op](step), inputs[0], out));
    else runs.push(binary(BINARY[step.op], inputs[0], inputs[1], out));
    values.push(out);
  }
  const named = Object.fromEntries(Object.entries(outputs).map(([name, number]) => [name, values[number]]));
  return {pixels: values[0].data, outputs: named, run: () => { for (const run of runs) run(); }};
}
async function unpackNet({program, weights}) {
  const described = JSON.parse(new TextDecoder().decode(await decompress(program)));
  return buildNet(described, unpackConstants(described.constants, await decompress(weights)));
}
