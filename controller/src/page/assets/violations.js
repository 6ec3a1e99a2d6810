// Violations as they happen.

import { ask, element, line, table, time } from './elements.js';

const COLUMNS = [
  ['When', (row) => time(row.at)],
  ['From', (row) => row.source],
  ['To', (row) => row.destination],
  ['Port', (row) => `${row.protocol} ${row.port}`],
  ['Whose baseline lacks it', (row) => row.workload],
  ['What policies say', (row) => row.verdict],
  ['Enforced', (row) => (row.enforced ? 'yes' : 'no')],
];

// As many as the server keeps: a page that stays open for days does not grow.
const MOST = 500;

export function violations(main) {
  const body = element('div', { class: 'scroll', id: 'violations' });
  main.append(element('h1', {}, 'Violations'),
    element('p', { class: 'quiet' }, 'Edges outside a frozen baseline, newest first.'), body);
  let rows = [];
  let since = null;
  const fill = () => {
    body.replaceChildren(rows.length
      ? table(`${rows.length} since `, COLUMNS, rows)
      : element('p', {}, 'None since ', time(since), '.'));
    body.querySelector('caption')?.append(time(since));
  };
  const load = async () => {
    const told = await ask('/api/violations');
    rows = told.violations;
    since = told.since;
    fill();
  };
  let loaded = false;
  return {
    async refresh() {
      // New ones come by themselves.
      if (!loaded) await load();
      loaded = true;
      return [];
    },
    resync: load,
    violation(found) {
      if (!loaded || rows.some((row) => row.number === found.number)) return;
      rows.unshift(found);
      rows.length = Math.min(rows.length, MOST);
      const list = body.querySelector('tbody');
      if (!list) return fill();
      list.prepend(line(COLUMNS, found, { class: 'fresh' }));
      if (list.rows.length > MOST) list.lastElementChild.remove();
      body.querySelector('caption').firstChild.textContent = `${rows.length} since `;
    },
  };
}
