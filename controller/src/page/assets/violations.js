// Violations as they happen, and those that Segments still know of.

import { address, ask, counted, decided, element, empty, line, parts, table, time } from './elements.js';

const COLUMNS = [
  ['Policies say', decided, 'tight'],
  ['From', (row) => parts(row.source), 'name'],
  ['To', (row) => parts(row.destination), 'name'],
  ['Port', (row) => `${row.protocol} ${row.port}`, 'tight'],
  ['Tries', (row) => row.count ?? '', 'number'],
  ['First seen', (row) => time(row.firstSeen), 'tight'],
  ['Baseline of', (row) => element('a', { href: address('segments', ...row.segment) }, parts(row.workload)), 'name'],
  ['Why', (row) => row.verdict, 'words'],
  ['Ask', (row) => element('a', { href: address('what-if', row.source, row.destination, row.protocol, row.port) }, 'What if'), 'tight'],
];

// As many as the server keeps: a page that stays open for days does not grow.
const MOST = 500;

export function violations(main) {
  const about = element('p', {});
  const body = element('div', { class: 'scroll', id: 'violations' });
  const find = element('input', { type: 'search', id: 'find', autocomplete: 'off', oninput: () => fill() });
  main.append(
    element('div', { class: 'head' }, element('h1', {}, 'Violations'), about),
    element('div', { class: 'filters' }, element('label', { class: 'broad' }, 'Find', find)),
    element('div', { class: 'panel bare' }, body));
  let told = { violations: [], older: [], more: 0, since: null };
  const means = (row) => {
    const word = find.value.trim().toLowerCase();
    return !word || `${row.source} ${row.destination} ${row.protocol} ${row.port} ${row.workload} ${row.decided} ${row.verdict ?? ''}`.toLowerCase().includes(word);
  };
  const all = () => [...told.violations, ...told.older];
  const caption = (shown) => (shown === all().length ? counted(shown, 'connection') : `${shown} of ${counted(all().length, 'connection')}`)
    + (told.more ? `, and ${told.more} older ones that Segments know of` : '');
  const fill = () => {
    const shown = all().filter(means);
    about.replaceChildren('Connections outside of a frozen baseline, newest first. Followed since ', time(told.since), '.');
    body.replaceChildren(all().length
      ? table(caption(shown.length), COLUMNS, shown)
      : empty('No violation', element('p', {}, 'Every connection is in the baseline of its workload. What is new appears here as it happens, once baselines are frozen.')));
  };
  let before = '';
  const load = async () => {
    const next = await ask('/api/violations');
    const now = JSON.stringify(next);
    if (now === before) return;
    before = now;
    told = next;
    fill();
  };
  return {
    async refresh() {
      // New ones come by themselves; how often they were tried does not.
      await load();
      return [];
    },
    resync: load,
    violation(found) {
      if (told.since === null || told.violations.some((row) => row.number === found.number)) return;
      told.violations.unshift(found);
      told.violations.length = Math.min(told.violations.length, MOST);
      const list = body.querySelector('tbody');
      if (!list || !means(found)) return fill();
      list.prepend(line(COLUMNS, found, { class: 'fresh' }));
      if (list.rows.length > MOST) list.lastElementChild.remove();
      body.querySelector('caption').textContent = caption(list.rows.length);
    },
  };
}
