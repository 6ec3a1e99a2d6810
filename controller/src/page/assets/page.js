// Which view is shown, and what the server tells without being asked.

import { ask, element, paced, visible } from './elements.js';
import { map } from './map.js';
import { segments, review } from './segments.js';
import { violations } from './violations.js';
import { whatIf } from './what-if.js';

const main = document.getElementById('view');
const notice = document.getElementById('notice');
const heard = document.getElementById('heard');
const link = document.getElementById('link');
const count = document.getElementById('count');

let shown = null;
let unread = 0;

function say(sentence) {
  notice.textContent = visible(sentence);
  notice.hidden = !sentence;
}

function plain(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The view that an address means: a function that fills the page and returns what can be told to it. */
function route() {
  const [name, ...rest] = location.hash.slice(1).split('/').map(plain);
  switch (name) {
    case 'segments': return rest.length === 2 ? ['segments', () => review(main, rest[0], rest[1])] : ['segments', () => segments(main)];
    case 'violations': return ['violations', () => violations(main)];
    case 'what-if': return ['what-if', () => whatIf(main, rest)];
    default: return ['map', () => map(main)];
  }
}

async function show() {
  const [name, open] = route();
  for (const anchor of document.querySelectorAll('nav a')) {
    if (anchor.hash === `#${name}`) anchor.setAttribute('aria-current', 'page');
    else anchor.removeAttribute('aria-current');
  }
  shown?.close?.();
  main.replaceChildren();
  document.title = `nanoseg: ${name.replace('-', ' ')}`;
  shown = open();
  if (name === 'violations') {
    unread = 0;
    tellCount();
  }
  await refresh();
}

async function refresh() {
  const view = shown;
  try {
    const awaited = await view.refresh();
    if (view !== shown) return;
    say(awaited?.length ? `The controller has not read everything yet (${awaited.join(', ')}): what is shown is a part.` : '');
  } catch (error) {
    if (view === shown) say(`Not up to date: ${error.message}`);
  }
}

function tellCount() {
  count.textContent = unread > 999 ? '999+' : String(unread);
  count.hidden = unread === 0;
}

function follow() {
  const events = new EventSource('/api/events');
  const again = paced(1000, refresh);
  events.addEventListener('open', () => {
    link.textContent = 'live';
    link.classList.add('live');
  });
  events.addEventListener('error', () => {
    link.textContent = 'not connected';
    link.classList.remove('live');
    // A browser gives up after some answers; this one does not.
    if (events.readyState === EventSource.CLOSED) setTimeout(follow, 5000);
  });
  events.addEventListener('state', again);
  events.addEventListener('resync', () => shown?.resync?.());
  events.addEventListener('violation', (event) => {
    const violation = JSON.parse(event.data);
    shown?.violation?.(violation);
    if (!location.hash.startsWith('#violations')) {
      unread += 1;
      tellCount();
    }
    const sentence = `Violation: ${violation.source} to ${violation.destination}, ${violation.protocol} ${violation.port}. ${violation.verdict}`;
    // A reader is told the last few: a list that grows is never read out.
    heard.append(element('span', {}, sentence));
    while (heard.childElementCount > 5) heard.firstElementChild.remove();
  });
}

function theme() {
  const button = document.getElementById('theme');
  const wish = matchMedia('(prefers-color-scheme: dark)');
  const set = (dark) => {
    document.documentElement.dataset.theme = dark ? 'dark' : 'light';
    button.setAttribute('aria-pressed', String(dark));
    shown?.recolour?.();
  };
  const kept = () => {
    try {
      return localStorage.getItem('theme');
    } catch {
      return null;
    }
  };
  set(kept() ? kept() === 'dark' : wish.matches);
  wish.addEventListener('change', () => kept() || set(wish.matches));
  button.addEventListener('click', () => {
    const dark = document.documentElement.dataset.theme !== 'dark';
    try {
      localStorage.setItem('theme', dark ? 'dark' : 'light');
    } catch {
      // A browser that keeps nothing asks its user again next time.
    }
    set(dark);
  });
}

theme();
window.addEventListener('hashchange', async () => {
  await show();
  // Another view begins at its beginning, and what stays above does not hide it.
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
});
await show();
const before = await ask('/api/violations').catch(() => ({ total: 0 }));
if (!location.hash.startsWith('#violations')) {
  unread += before.total;
  tellCount();
}
follow();
