// Draws a map that the server has laid out. While it moves, a picture of it moves; when it rests, it is drawn anew. So how many
// connections there are does not decide how smoothly it moves.

import { DASHES, phaseTone } from './elements.js';

const WIDE = new Set(['Quarantined', 'Novel', 'Denied', 'WouldBeDenied']);
const REST = 140;
// Curves of one stroke: a path that is too long costs more than the sum of its parts.
const BATCH = 64;
// Names are drawn where they can be read.
const READABLE = 6.5;
// Ports are written on so many connections at most: more would lie on each other.
const LABELLED = 80;
// What has nothing to do with what was chosen.
const FAINT = 0.13;

function variable(style, name) {
  return style.getPropertyValue(name).trim();
}

function colourOf(style, state) {
  return variable(style, `--${state.replace(/[A-Z]/g, (letter, at) => (at ? '-' : '') + letter.toLowerCase())}`);
}

function middle({ x, y, width, height }) {
  return [x + width / 2, y + height / 2];
}

/** Where the line from the middle of a box towards a point leaves the box. */
function rim(place, [x, y]) {
  const [mx, my] = middle(place);
  const [dx, dy] = [x - mx, y - my];
  const scale = Math.min(place.width / 2 / Math.abs(dx || 1e-9), place.height / 2 / Math.abs(dy || 1e-9), 1);
  return [mx + dx * scale, my + dy * scale];
}

/** Start, control point and end of the curve from one box to another; a loop beside the box where both are one. */
function curve(from, to) {
  if (from === to) {
    const x = from.x + from.width;
    const y = from.y + from.height / 2;
    return [x, y - 8, x + 46, y, x, y + 8];
  }
  const [ax, ay] = middle(from);
  const [bx, by] = middle(to);
  const bend = 0.12;
  const control = [(ax + bx) / 2 - (by - ay) * bend, (ay + by) / 2 + (bx - ax) * bend];
  return [...rim(from, control), ...control, ...rim(to, control)];
}

export class Drawing {
  #canvas;
  #context;
  #layer = document.createElement('canvas');
  #drawn = null;
  #view = { scale: 1, x: 0, y: 0 };
  #map = { size: { width: 1, height: 1 }, groups: [], parties: [], links: [], states: [] };
  #strokes = [];
  #chosen = null;
  #over = null;
  #pointer = null;
  #looking = 0;
  #timer = 0;
  #frame = 0;
  #pick;
  #hint;
  #observer;
  /** Somebody has moved it: what is seen is theirs to choose. */
  #touched = false;

  /** What is drawn: groups and what joins them, or parties and their connections. */
  detailed = true;

  /** `pick` is told what was chosen, `hint` what lies under the pointer and where that is. */
  constructor(canvas, pick, hint) {
    this.#canvas = canvas;
    this.#context = canvas.getContext('2d');
    this.#pick = pick;
    this.#hint = hint;
    this.#listen();
    this.#observer = new ResizeObserver(() => (this.#touched ? this.rest() : this.fit()));
    this.#observer.observe(canvas);
  }

  close() {
    this.#observer.disconnect();
    clearTimeout(this.#timer);
    cancelAnimationFrame(this.#frame);
    cancelAnimationFrame(this.#looking);
  }

  /** Another map. What one looks at stays where it is on the screen; who has not moved it sees all of it. */
  show(map) {
    const before = this.#map;
    this.#map = map;
    this.#over = null;
    this.#hint(null);
    if (!this.#touched || !before.groups.length) {
      if (!before.groups.length || before.size.width !== map.size.width || before.size.height !== map.size.height) this.fit();
      return;
    }
    const [was, is] = this.#anchor(before, map) ?? [];
    if (!was) return;
    const { scale, x, y } = this.#view;
    this.#view = { scale, x: x + (was.x - is.x) * scale, y: y + (was.y - is.y) * scale };
  }

  /** The places, before and now, of what is on both maps and nearest to what one looks at. */
  #anchor(before, map) {
    const { scale, x, y } = this.#view;
    const kind = this.detailed ? 'parties' : 'groups';
    const now = new Map(map[kind].map(({ id, place }) => [id, place]));
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const [cx, cy] = [(width / 2 - x) / scale, (height / 2 - y) / scale];
    let best = null;
    let least = Infinity;
    for (const { id, place } of before[kind]) {
      if (!now.has(id)) continue;
      const [mx, my] = middle(place);
      const chosen = this.#chosen?.id === id || this.#chosen?.source?.id === id;
      const distance = chosen ? -1 : Math.hypot(mx - cx, my - cy);
      if (distance < least) {
        least = distance;
        best = [place, now.get(id)];
      }
    }
    return best;
  }

  /** Which connections are drawn: from where to where, their state, what to tell when one is chosen, and what to write on it. */
  strokes(list) {
    this.#strokes = list.map(({ from, to, state, weight, told, label }) => ({ curve: curve(from, to), state, weight: weight ?? 1, told, label }));
    this.rest();
  }

  choose(told) {
    this.#chosen = told;
    this.rest();
  }

  /** Whether names could be read where all of a map is shown. */
  readable({ size }) {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    return 14 * Math.min(width / size.width, height / size.height) > READABLE;
  }

  fit() {
    this.#touched = false;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const { size } = this.#map;
    const scale = Math.min(width / Math.max(size.width, 1), height / Math.max(size.height, 1), 1.4);
    this.#view = { scale, x: (width - size.width * scale) / 2, y: (height - size.height * scale) / 2 };
    this.rest();
  }

  /** Looks at a box. */
  look(place) {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const scale = Math.min(width / (place.width * 1.2), height / (place.height * 1.2), 1.4);
    const [x, y] = middle(place);
    this.#view = { scale, x: width / 2 - x * scale, y: height / 2 - y * scale };
    this.#touched = true;
    this.rest();
  }

  zoom(factor, x = this.#canvas.clientWidth / 2, y = this.#canvas.clientHeight / 2) {
    const view = this.#view;
    const scale = Math.min(Math.max(view.scale * factor, 0.01), 4);
    const by = scale / view.scale;
    this.#view = { scale, x: x - (x - view.x) * by, y: y - (y - view.y) * by };
    this.#moved();
  }

  pan(dx, dy) {
    this.#view = { ...this.#view, x: this.#view.x + dx, y: this.#view.y + dy };
    this.#moved();
  }

  #moved() {
    this.#touched = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.rest(), REST);
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#slide();
    });
  }

  /** The picture that is there, where it belongs now. */
  #slide() {
    const context = this.#context;
    const { canvas } = context;
    const before = this.#drawn;
    if (!before) return this.rest();
    const by = this.#view.scale / before.scale;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const ratio = before.ratio;
    context.setTransform(by, 0, 0, by, (this.#view.x - before.x * by) * ratio, (this.#view.y - before.y * by) * ratio);
    context.drawImage(this.#layer, -before.margin.x, -before.margin.y);
    // What lies under the pointer is drawn above all: for it alone nothing is drawn anew.
    if (!this.#over) return;
    const { scale, x, y } = this.#view;
    context.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
    context.strokeStyle = variable(getComputedStyle(document.documentElement), '--accent');
    context.lineWidth = 3 / scale;
    context.setLineDash([]);
    context.beginPath();
    const { party, group, stroke } = this.#over;
    if (stroke) {
      const [ax, ay, mx, my, bx, by] = this.#strokes.find(({ told }) => told === stroke)?.curve ?? [0, 0, 0, 0, 0, 0];
      context.moveTo(ax, ay);
      context.quadraticCurveTo(mx, my, bx, by);
    } else {
      const { place } = party ?? group;
      context.roundRect(place.x, place.y, place.width, place.height, party ? 8 : 12);
    }
    context.stroke();
  }

  /** Draws anew. */
  rest() {
    clearTimeout(this.#timer);
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#paint();
    });
  }

  #paint() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (!width || !height) return;
    this.#canvas.width = width * ratio;
    this.#canvas.height = height * ratio;
    // A quarter more on each side: what comes into view while it moves is there already.
    const margin = { x: Math.round(width * ratio / 4), y: Math.round(height * ratio / 4) };
    this.#layer.width = width * ratio + 2 * margin.x;
    this.#layer.height = height * ratio + 2 * margin.y;
    const context = this.#layer.getContext('2d');
    const { scale, x, y } = this.#view;
    context.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio + margin.x, y * ratio + margin.y);
    const seen = {
      left: (-x - margin.x / ratio) / scale, top: (-y - margin.y / ratio) / scale,
      right: (width - x + margin.x / ratio) / scale, bottom: (height - y + margin.y / ratio) / scale,
    };
    this.#content(context, scale, seen);
    this.#drawn = { scale, x, y, ratio, margin };
    this.#slide();
    // Whoever measures how soon there is something to see.
    if (this.#map.groups.length && !performance.getEntriesByName('drawn').length) performance.mark('drawn');
  }

  #content(context, scale, seen) {
    const style = getComputedStyle(document.documentElement);
    const inside = (place) => place.x < seen.right && place.y < seen.bottom && place.x + place.width > seen.left && place.y + place.height > seen.top;
    const font = (size, weight = 400) => { context.font = `${weight} ${size}px system-ui, sans-serif`; };
    const { groups, parties } = this.#map;
    context.textBaseline = 'middle';
    const boxes = () => {
      for (const { place } of groups) {
        if (!inside(place)) continue;
        context.fillStyle = variable(style, '--raised');
        context.strokeStyle = variable(style, '--line');
        context.lineWidth = 1 / scale;
        context.beginPath();
        context.roundRect(place.x, place.y, place.width, place.height, 12);
        context.fill();
        context.stroke();
      }
    };
    // Lines lie on the boxes that they lead through, where these hold something; else beneath, so that names can be read.
    if (this.detailed) boxes();
    this.#lines(context, scale, seen, style);
    if (!this.detailed) boxes();
    if (this.detailed) {
      for (const party of parties) {
        const { place } = party;
        if (!inside(place)) continue;
        const chosen = this.#chosen === party;
        const faint = party.shown === false;
        const tone = party.who.phase ? phaseTone(party.who.phase) : null;
        context.fillStyle = variable(style, '--ground');
        context.strokeStyle = variable(style, chosen ? '--accent' : faint ? '--line' : '--edge');
        context.lineWidth = (chosen ? 3 : 1.2) / scale;
        // What lies outside of the cluster, and what is not known, has no pods that a policy could select.
        context.setLineDash(party.who.type === 'External' || party.who.type === 'Unknown' ? [5 / scale, 3 / scale] : []);
        context.beginPath();
        context.roundRect(place.x, place.y, place.width, place.height, 8);
        context.fill();
        context.stroke();
        context.setLineDash([]);
        if (tone !== null) {
          context.fillStyle = variable(style, { good: '--good', bad: '--bad', warn: '--warn', info: '--accent' }[tone] ?? '--undecided');
          context.globalAlpha = faint ? 0.4 : 1;
          context.beginPath();
          context.roundRect(place.x, place.y, 5, place.height, [8, 0, 0, 8]);
          context.fill();
          context.globalAlpha = 1;
        }
        // From far away the name alone, as large as its box allows.
        const size = Math.min(Math.max(14, 9.5 / scale), 26);
        if (size * scale < READABLE) continue;
        const alone = size > 15;
        font(size, 600);
        context.fillStyle = variable(style, faint ? '--quiet' : '--text');
        this.#words(context, party.title, place.x + 13, place.y + place.height * (alone ? 0.52 : 0.34), place.width - 21);
        if (alone) continue;
        font(11.5);
        context.fillStyle = variable(style, '--quiet');
        this.#words(context, party.about, place.x + 13, place.y + place.height * 0.72, place.width - 21);
      }
      this.#labels(context, scale, seen, style, font);
    }
    for (const group of groups) {
      const { place } = group;
      if (!inside(place)) continue;
      context.fillStyle = variable(style, '--text');
      if (this.detailed) {
        // As large as it takes to be read, but not larger than its box.
        const wanted = Math.min(Math.max(16, 11 / scale), 44);
        font(wanted, 600);
        const size = wanted * Math.min(Math.max((place.width - 20) / context.measureText(group.title).width, 0.7), 1);
        font(size, 600);
        context.strokeStyle = variable(style, '--raised');
        context.lineWidth = size / 4;
        context.lineJoin = 'round';
        context.strokeText(group.title, place.x + 12, place.y + Math.max(22, size * 0.7), place.width - 18);
        this.#words(context, group.title, place.x + 12, place.y + Math.max(22, size * 0.7), place.width - 18);
      } else {
        // Where two lines could not be read there is one.
        const alone = place.height / 3 * scale < 9;
        const wanted = Math.min(15 / scale, place.height * (alone ? 0.55 : 0.33));
        font(wanted, 600);
        const size = wanted * Math.min(Math.max((place.width - 8 / scale) / context.measureText(group.title).width, 0.6), 1);
        font(size, 600);
        const [x, y] = middle(place);
        context.textAlign = 'center';
        this.#words(context, group.title, x, alone ? y : y - size * 0.6, place.width - 8 / scale);
        if (!alone) {
          context.fillStyle = variable(style, '--quiet');
          font(size * 0.8);
          this.#words(context, group.about, x, y + size * 0.7, place.width - 8 / scale);
        }
        context.textAlign = 'start';
      }
    }
  }

  /** Ports, in the middle of their connections, while they can be read and do not lie on each other. */
  #labels(context, scale, seen, style, font) {
    const told = this.#strokes.filter(({ label, told: edge }) => label && this.#isNear(edge));
    const size = Math.min(Math.max(11, 9 / scale), 16);
    if (told.length > LABELLED || size * scale < READABLE) return;
    const taken = this.#map.parties.map(({ place }) => place);
    font(size, 600);
    context.textAlign = 'center';
    // What most needs attention is written first.
    for (const { curve: [ax, ay, cx, cy, bx, by], state, label } of told) {
      const width = context.measureText(label).width + 8;
      const height = size + 6;
      const at = (t) => [(1 - t) ** 2 * ax + 2 * t * (1 - t) * cx + t * t * bx, (1 - t) ** 2 * ay + 2 * t * (1 - t) * cy + t * t * by];
      const box = [0.5, 0.62, 0.38, 0.72, 0.28].map(at)
        .map(([x, y]) => ({ x: x - width / 2, y: y - height / 2, width, height }))
        .find((free) => free.x < seen.right && free.y < seen.bottom && free.x + width > seen.left && free.y + height > seen.top
          && !taken.some((other) => free.x < other.x + other.width && other.x < free.x + width && free.y < other.y + other.height && other.y < free.y + height));
      if (!box) continue;
      taken.push(box);
      context.fillStyle = variable(style, '--ground');
      context.strokeStyle = colourOf(style, state);
      context.lineWidth = 1 / scale;
      context.beginPath();
      context.roundRect(box.x, box.y, width, height, height / 2);
      context.fill();
      context.stroke();
      context.fillStyle = variable(style, '--text');
      context.fillText(label, box.x + width / 2, box.y + height / 2 + 0.5);
    }
    context.textAlign = 'start';
  }

  /** Whether a connection has to do with what was chosen. */
  #isNear(told) {
    const chosen = this.#chosen;
    return !chosen || chosen === told || told.source === chosen || told.destination === chosen;
  }

  /** A text that ends where its box does. */
  #words(context, text, x, y, width) {
    let shown = text ?? '';
    if (context.measureText(shown).width > width) {
      // Letters are about alike: the first guess is near, and never far too long.
      shown = shown.slice(0, Math.max(1, Math.floor(shown.length * width / context.measureText(shown).width) - 1));
      shown += '…';
    }
    context.fillText(shown, x, y, width);
  }

  #lines(context, scale, seen, style) {
    const many = this.#strokes.length > (this.detailed ? 2000 : 200);
    const byState = new Map(this.#map.states.map(({ name }) => [name, []]));
    for (const stroke of this.#strokes) {
      const [ax, ay, cx, cy, bx, by] = stroke.curve;
      const outside = Math.min(ax, bx, cx) > seen.right || Math.max(ax, bx, cx) < seen.left
        || Math.min(ay, by, cy) > seen.bottom || Math.max(ay, by, cy) < seen.top;
      if (!outside) byState.get(stroke.state)?.push(stroke);
    }
    // What most needs attention comes last, on top.
    for (const [state, all] of [...byState].reverse()) {
      const near = all.filter(({ told }) => this.#isNear(told));
      const far = near.length < all.length ? all.filter(({ told }) => !this.#isNear(told)) : [];
      for (const [strokes, faint] of [[far, true], [near, false]]) {
        if (!strokes.length) continue;
        const colour = colourOf(style, state);
        context.strokeStyle = colour;
        context.fillStyle = colour;
        context.globalAlpha = faint ? FAINT : many && !this.#chosen && !WIDE.has(state) ? 0.35 : 0.9;
        context.setLineDash(many && scale < 0.3 ? [] : DASHES[state].map((length) => length / scale));
        const thick = WIDE.has(state) ? 2.2 : 1.5;
        const weights = this.detailed ? [1] : [...new Set(strokes.map((stroke) => stroke.weight))];
        for (const weight of weights) {
          context.lineWidth = thick * weight / scale;
          const alike = this.detailed ? strokes : strokes.filter((stroke) => stroke.weight === weight);
          for (let start = 0; start < alike.length; start += BATCH) {
            context.beginPath();
            for (const { curve: [ax, ay, cx, cy, bx, by] } of alike.slice(start, start + BATCH)) {
              context.moveTo(ax, ay);
              context.quadraticCurveTo(cx, cy, bx, by);
            }
            context.stroke();
          }
        }
        context.setLineDash([]);
        if (strokes.length < 3000 && scale > 0.12) this.#heads(context, scale, strokes);
      }
    }
    context.globalAlpha = 1;
    const chosen = this.#strokes.find((stroke) => stroke.told === this.#chosen);
    if (chosen) {
      const [ax, ay, cx, cy, bx, by] = chosen.curve;
      context.strokeStyle = variable(style, '--accent');
      context.lineWidth = 4 / scale;
      context.beginPath();
      context.moveTo(ax, ay);
      context.quadraticCurveTo(cx, cy, bx, by);
      context.stroke();
    }
  }

  #heads(context, scale, strokes) {
    const head = 8 / Math.max(scale, 0.35);
    context.beginPath();
    for (const { curve: [, , cx, cy, bx, by] } of strokes) {
      const angle = Math.atan2(by - cy, bx - cx);
      context.moveTo(bx, by);
      context.lineTo(bx - head * Math.cos(angle - 0.42), by - head * Math.sin(angle - 0.42));
      context.lineTo(bx - head * Math.cos(angle + 0.42), by - head * Math.sin(angle + 0.42));
      context.closePath();
    }
    context.fill();
  }

  /** What lies at a point of the canvas. */
  #at(px, py) {
    const { scale } = this.#view;
    const x = (px - this.#view.x) / scale;
    const y = (py - this.#view.y) / scale;
    const within = ({ place }) => x >= place.x && x <= place.x + place.width && y >= place.y && y <= place.y + place.height;
    const party = this.detailed && this.#map.parties.find(within);
    if (party) return { party };
    let best = null;
    let least = 7 / scale;
    for (const stroke of this.#strokes) {
      const [ax, ay, cx, cy, bx, by] = stroke.curve;
      if (x < Math.min(ax, bx, cx) - least || x > Math.max(ax, bx, cx) + least || y < Math.min(ay, by, cy) - least || y > Math.max(ay, by, cy) + least) continue;
      for (let step = 0; step <= 24; step += 1) {
        const t = step / 24;
        const u = 1 - t;
        const distance = Math.hypot(u * u * ax + 2 * u * t * cx + t * t * bx - x, u * u * ay + 2 * u * t * cy + t * t * by - y);
        // A curve's points are apart: half of that counts as on it.
        const apart = Math.hypot(bx - ax, by - ay) / 48;
        if (distance - apart < least) {
          least = Math.max(distance - apart, 0);
          best = stroke;
        }
      }
    }
    if (best) return { stroke: best.told };
    const group = this.#map.groups.find(within);
    return group ? { group } : null;
  }

  /** At most once in a picture: a pointer moves more often than anything can be drawn. */
  #hover(event) {
    if (event.pointerType === 'touch') return;
    this.#pointer = event;
    this.#looking ||= requestAnimationFrame(() => {
      this.#looking = 0;
      if (this.#pointer) this.#point(this.#at(this.#pointer.offsetX, this.#pointer.offsetY), this.#pointer);
    });
  }

  /** What lies under the pointer is shown to be there. */
  #point(found, event) {
    if (!event) this.#pointer = null;
    const same = (one, other) => one?.party === other?.party && one?.group === other?.group && one?.stroke === other?.stroke;
    this.#canvas.classList.toggle('over', Boolean(found));
    this.#hint(found && !(found.group && this.detailed) ? found : null, event?.offsetX, event?.offsetY);
    if (same(found, this.#over)) return;
    this.#over = found?.group && this.detailed ? null : found;
    this.#slide();
  }

  #listen() {
    const canvas = this.#canvas;
    const pointers = new Map();
    let far = 0;
    canvas.addEventListener('pointerdown', (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, event);
      canvas.classList.add('held');
      this.#point(null);
      far = 0;
    });
    canvas.addEventListener('pointerleave', () => this.#point(null));
    canvas.addEventListener('pointermove', (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return this.#hover(event);
      const others = [...pointers.values()].filter((other) => other.pointerId !== event.pointerId);
      const [dx, dy] = [event.offsetX - before.offsetX, event.offsetY - before.offsetY];
      far += Math.hypot(dx, dy);
      if (others.length === 1) {
        const [other] = others;
        const apart = (one) => Math.hypot(one.offsetX - other.offsetX, one.offsetY - other.offsetY) || 1;
        this.zoom(apart(event) / apart(before), (event.offsetX + other.offsetX) / 2, (event.offsetY + other.offsetY) / 2);
      } else {
        this.pan(dx, dy);
      }
      pointers.set(event.pointerId, event);
    });
    const end = (event) => {
      canvas.classList.remove('held');
      if (pointers.delete(event.pointerId) && event.type === 'pointerup' && far < 5) this.#pick(this.#at(event.offsetX, event.offsetY));
    };
    canvas.addEventListener('pointerup', end);
    canvas.addEventListener('pointercancel', end);
    canvas.addEventListener('wheel', (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener('keydown', (event) => {
      const step = 60;
      const action = {
        ArrowLeft: () => this.pan(step, 0), ArrowRight: () => this.pan(-step, 0),
        ArrowUp: () => this.pan(0, step), ArrowDown: () => this.pan(0, -step),
        '+': () => this.zoom(1.25), '=': () => this.zoom(1.25), '-': () => this.zoom(0.8), 0: () => this.fit(),
      }[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    });
  }
}
