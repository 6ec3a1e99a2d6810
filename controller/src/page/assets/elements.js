// Elements and answers. Texts become text nodes alone: whatever a name holds, it is never markup.

/** An element with attributes, and children that are elements or texts. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== ''));
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

/** A table. Columns are [title, cell of a row, is a number]. */
export function table(caption, columns, rows, attributes = {}) {
  const heads = columns.map(([title, , number]) => element('th', { scope: 'col', class: number ? 'number' : null }, title));
  return element('table', { class: 'cards', ...attributes },
    element('caption', {}, caption),
    element('thead', {}, element('tr', {}, heads)),
    element('tbody', {}, rows.map((row) => line(columns, row))));
}

/** A row of such a table. */
export function line(columns, row, attributes = {}) {
  return element('tr', attributes, columns.map(([title, cell, number]) => {
    const value = cell(row);
    return element('td', { 'data-label': title, class: number ? 'number' : null }, typeof value === 'number' ? String(value) : value);
  }));
}

/** A time as people here write it. */
export function time(text) {
  if (!text) return '';
  const at = new Date(text);
  return Number.isNaN(at.valueOf()) ? text : element('time', { datetime: text }, at.toLocaleString());
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
