// Elements and answers. Texts become text nodes alone: whatever a name holds, it is never markup.

// Characters that are not seen, or that turn what stands beside them around. The same are written out in every other form of a map.
const DECEIVES = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff\u{e0000}-\u{e007f}]/gu;

/** A text of characters that are seen: others are written out, so that a name deceives nobody who looks at it. */
export function visible(text) {
  return text.replace(DECEIVES, (found) => `\\u{${found.codePointAt(0).toString(16)}}`);
}

// What is read out or told in a box of its own.
const TOLD = new Set(['aria-label', 'title', 'data-label']);

/** An element with attributes, and children that are elements or texts. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? '' : TOLD.has(name) ? visible(String(value)) : value);
  }
  const told = children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== '');
  made.append(...told.map((child) => (child instanceof Node ? child : visible(String(child)))));
  return made;
}

export function button(label, action, attributes = {}) {
  return element('button', { type: 'button', onclick: action, ...attributes }, label);
}

/** A list of terms and what is said of them; without those of which nothing is. */
export function terms(pairs) {
  const told = pairs.filter(([, value]) => value !== undefined && value !== null && value !== '' && String(value).length > 0);
  return element('dl', {}, told.map(([term, value]) => [element('dt', {}, term), element('dd', {}, value)]));
}

/** A word that stands out. Tones are good, bad, warn and info. */
export function chip(word, tone = '', attributes = {}) {
  return element('span', { class: `chip ${tone}`, ...attributes }, word);
}

/** A name that may go on in the next line after each of its parts. */
export function parts(name) {
  return name.split('/').flatMap((part, at) => (at ? ['/', element('wbr'), part] : [part]));
}

/** What stands where there is nothing yet, and what to do about it. */
export function empty(title, ...what) {
  return element('div', { class: 'empty' }, element('strong', {}, title), what);
}

/** A number with its noun. */
export function counted(number, one, many = `${one}s`) {
  return `${number.toLocaleString()} ${number === 1 ? one : many}`;
}

/** A table. Columns are [title, cell of a row, how: number, tight or words]. */
export function table(caption, columns, rows, attributes = {}) {
  const heads = columns.map(([title, , how]) => element('th', { scope: 'col', class: how }, title));
  return element('table', { class: 'cards', ...attributes },
    element('caption', {}, caption),
    element('thead', {}, element('tr', {}, heads)),
    element('tbody', {}, rows.map((row) => line(columns, row))));
}

/** A row of such a table. */
export function line(columns, row, attributes = {}) {
  return element('tr', attributes, columns.map(([title, cell, how]) => {
    const value = cell(row);
    const told = typeof value === 'number' ? value.toLocaleString() : value;
    const cells = [told].flat(Infinity).filter((part) => part !== undefined && part !== null && part !== '');
    return element('td', { 'data-label': title, class: how }, cells.length ? element('span', {}, cells) : '');
  }));
}

/** A time as people here write it: of today without the day. */
export function time(text) {
  if (!text) return '';
  const at = new Date(text);
  if (Number.isNaN(at.valueOf())) return text;
  const today = at.toDateString() === new Date().toDateString();
  const words = today ? at.toLocaleTimeString() : at.toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
  return element('time', { datetime: text, title: at.toLocaleString() }, words);
}

/** How a state of a connection is drawn beside its colour: nobody has to tell colours apart. */
export const DASHES = {
  Quarantined: [2, 3], Novel: [], Denied: [], WouldBeDenied: [7, 4], Undecided: [2, 3], Stale: [2, 5], Enforced: [], Covered: [7, 4], Observed: [],
};

/** A piece of a line as the map draws it. */
export function swatch(state) {
  const dash = DASHES[state];
  const style = dash.length === 0 ? '' : dash[0] > 4 ? 'dashed' : 'dotted';
  return element('span', { class: `state ${state} ${style}`, 'aria-hidden': 'true' });
}

/** How much attention a phase needs. */
const TONES = { Degraded: 'bad', Enforcing: 'good', Proposed: 'info', Auditing: 'info', Stable: 'warn', Stabilizing: '', Learning: '', Off: '', Gone: '' };

export function phaseTone(word) {
  return TONES[word] ?? '';
}

export function phase(word) {
  return chip(word, phaseTone(word));
}

const VERDICTS = { denied: 'bad', 'would be denied': 'warn', allowed: 'good' };

/** What policies say of a connection outside of a baseline. */
export function decided(row) {
  return row.decided ? chip(row.decided, VERDICTS[row.decided]) : '';
}

/** The address of a view, of parts that may hold anything. */
export function address(view, ...parts) {
  return [`#${view}`, ...parts.map((part) => encodeURIComponent(part))].join('/');
}

/** Asks the server. What it cannot answer is an error with its own sentence. */
export async function ask(path) {
  const answer = await fetch(path, { headers: { accept: 'application/json' }, credentials: 'same-origin' });
  if (answer.status === 401) {
    location.reload();
    throw new Error('the token is asked for again');
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error ?? `the server answered ${answer.status}`);
  return body;
}

/** How an end of a connection is asked about. */
export function asked(party) {
  const who = party.who;
  switch (who.type) {
    case 'Workload': return `${who.namespace}/${who.kind}/${who.name}`;
    case 'Service': return `service ${who.namespace}/${who.name}`;
    case 'Node': return `node ${who.name}`;
    case 'External': return who.address;
    default: return '';
  }
}

/** Runs something at most so often, and the last call for certain. */
export function paced(milliseconds, action) {
  let timer = 0;
  let last = 0;
  return () => {
    if (timer) return;
    const wait = Math.max(0, last + milliseconds - performance.now());
    timer = setTimeout(() => {
      timer = 0;
      last = performance.now();
      action();
    }, wait);
  };
}

/** Replaces what an element holds. Who was at something in it by keyboard is there again. */
export function swap(container, ...content) {
  const key = (at) => at.ariaLabel || at.getAttribute('href') || at.textContent;
  const at = document.activeElement;
  const before = container.contains(at) && at !== container ? key(at) : null;
  container.replaceChildren(...content.flat(Infinity).filter(Boolean));
  if (before === null) return;
  const again = [...container.querySelectorAll('a, button, input, select, pre')].find((made) => key(made) === before);
  again?.focus({ preventScroll: true });
}
