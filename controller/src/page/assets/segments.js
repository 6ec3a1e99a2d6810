// The table of Segments, and the review of one proposal.

import { address, ask, button, chip, counted, decided, element, empty, phase, swap, table, time } from './elements.js';

function coverage(segment) {
  const side = (name, state) => state && chip(state.holds ? name : `${name} open`, state.holds ? 'good' : '', { title: state.message });
  if (!segment.ingress && !segment.egress) return '';
  return [side('ingress', segment.ingress), side('egress', segment.egress)];
}

function link(segment) {
  return element('a', { href: address('segments', segment.namespace, segment.name) }, segment.name);
}

const COLUMNS = [
  ['Segment', link, 'name'],
  ['Namespace', (row) => row.namespace],
  ['Phase', (row) => phase(row.phase), 'tight'],
  ['Mode', (row) => row.mode ?? '', 'tight'],
  ['Isolates', coverage, 'tight'],
  ['Edges', (row) => row.edges ?? 0, 'number'],
  ['Novel', (row) => row.novel ?? 0, 'number'],
  ['Waiting', (row) => row.quarantined ?? 0, 'number'],
  ['Lost', (row) => row.loss ?? 0, 'number'],
  ['What blocks promotion', (row) => (row.promotable && !row.promotable.holds ? row.promotable.message.replace(/^not promoted because /, '') : ''), 'words'],
];

// Rows that are made at a time: a browser takes long for thousands that nobody looks at.
const ROWS = 200;

export function segments(main) {
  const fields = { onchange: () => anew() };
  const find = element('input', { type: 'search', id: 'find', autocomplete: 'off', oninput: () => anew() });
  const namespace = element('select', { ...fields, id: 'namespace' });
  const word = element('select', { ...fields, id: 'phase' });
  const about = element('p', {});
  const body = element('div', { class: 'scroll' });
  main.append(
    element('div', { class: 'head' }, element('h1', {}, 'Segments'), about),
    element('div', { class: 'filters' },
      element('label', { class: 'broad' }, 'Find', find),
      element('label', {}, 'Namespace', namespace),
      element('label', {}, 'Phase', word)),
    element('div', { class: 'panel bare' }, body));
  let rows = [];
  let before = '';
  let most = ROWS;
  const anew = () => {
    most = ROWS;
    fill();
  };
  const count = (key) => {
    const found = new Map();
    for (const row of rows) found.set(row[key], (found.get(row[key]) ?? 0) + 1);
    return [...found].sort(([one], [other]) => (one < other ? -1 : 1));
  };
  const choices = (select, key) => {
    const chosen = select.value;
    select.replaceChildren(element('option', { value: '' }, 'all'),
      ...count(key).map(([value, number]) => element('option', { value }, `${value} (${number})`)));
    select.value = rows.some((row) => row[key] === chosen) ? chosen : '';
  };
  const fill = () => {
    const text = find.value.trim().toLowerCase();
    const shown = rows.filter((row) => (!namespace.value || row.namespace === namespace.value)
      && (!word.value || row.phase === word.value)
      && (!text || `${row.namespace}/${row.name} ${row.kind} ${row.workload} ${row.mode} ${row.phase} ${row.reason}`.toLowerCase().includes(text)));
    about.replaceChildren(count('phase').map(([value, number]) => `${number} ${value}`).join(' · '));
    swap(body, rows.length
      ? table(`${shown.length.toLocaleString()} of ${counted(rows.length, 'Segment')}`, COLUMNS, shown.slice(0, most))
      : empty('No Segment yet', element('p', {}, 'There is one for each workload that was seen talking. Learners report as soon as somebody does: a minute after the first connection is a good time to ask why not (nanoseg doctor).')),
    shown.length > most ? button(`Show more (${(shown.length - most).toLocaleString()})`, () => { most += ROWS * 4; fill(); }) : '');
  };
  return {
    async refresh() {
      const told = await ask('/api/segments');
      const now = JSON.stringify(told.segments);
      if (now !== before) {
        before = now;
        rows = told.segments;
        choices(namespace, 'namespace');
        choices(word, 'phase');
        fill();
      }
      return told.awaited;
    },
  };
}

const EDGE = [
  ['From', (edge) => edge.source],
  ['To', (edge) => edge.destination],
  ['Port', (edge) => `${edge.protocol} ${edge.port}`, 'tight'],
];

function commands(list) {
  return (list ?? []).map(({ about, command }) => {
    const copy = button('Copy', async () => {
      try {
        await navigator.clipboard.writeText(command);
        copy.textContent = 'Copied';
      } catch {
        copy.textContent = 'Select and copy it';
      }
    }, { 'aria-label': `Copy the command: ${about}` });
    return element('div', {}, element('p', {}, `To ${about}:`),
      element('div', { class: 'command' }, element('pre', { tabindex: '0' }, command), copy));
  });
}

function rules(told) {
  return told.rules.map((rule) => element('section', { class: 'rule' },
    element('div', {}, element('h3', {}, `${rule.direction} rule ${rule.number}`), element('pre', { tabindex: '0' }, rule.yaml)),
    element('div', {}, element('h3', {}, 'comes from'),
      element('ul', {}, rule.evidence.map((line) => element('li', {}, line))),
      rule.evidence.length ? '' : element('p', { class: 'quiet' }, 'nothing that is listed'))));
}

function difference(told) {
  const mark = { kept: '  ', added: '+ ', removed: '- ' };
  const lines = told.text.map(({ fate, text }) => element('span', { class: fate }, mark[fate] + text));
  return told.text.every(({ fate }) => fate === 'kept')
    ? element('p', {}, 'None: what is applied is the proposal.')
    : element('pre', { class: 'diff', tabindex: '0' }, lines);
}

function changes(title, told) {
  if (!told?.total) return element('p', {}, `${title}: none`);
  return element('div', { class: 'changes' },
    element('h3', {}, `${title}: ${told.total}`),
    told.groups.map(({ what, lines }) => [element('p', {}, what), element('ul', {}, lines.map((line) => element('li', {}, line)))]),
    told.more > 0 ? element('p', { class: 'quiet' }, `and ${told.more} more lines`) : '');
}

/** What is known of it at a glance. */
function facts(told) {
  const pairs = [
    ['Mode', told.mode], ['Promotion', told.promotion], ['Isolates', coverage(told)], ['Edges', told.edges],
    ['Lost while learning', told.loss], ['Learned since', time(told.learningSince)], ['Frozen', time(told.frozenAt)],
  ];
  const hashes = [['Proposal', told.proposalHash], ['Approved', told.approval ?? 'none'], ['Applied', told.appliedHash ?? 'none']];
  const pair = (long) => ([term, value]) => (value === undefined || value === null || value === '' ? '' : element('div', { class: long ? 'long' : null },
    element('dt', {}, term), element('dd', {}, long ? element('code', {}, value) : value)));
  return element('dl', { class: 'facts' }, pairs.map(pair(false)), hashes.map(pair(true)));
}

function panel(title, ...content) {
  return element('section', { class: 'panel' }, element('h2', {}, title), content);
}

function proposal(told) {
  if (!told.rules) return [empty('No proposal yet', element('p', {}, told.reason ?? ''))];
  return [
    panel('Approve', commands(told.commands)),
    panel('Rules, and the edges that they come from',
      element('p', {}, `The policy isolates ${(told.rules.isolates ?? []).join(' and ')} of the pods that it selects.`),
      rules(told.rules), told.rules.rest.map((line) => element('p', { class: 'quiet' }, line))),
    panel('What would change',
      changes('Connections that open', told.opened),
      changes('Connections that close', told.closed),
      changes('Connections of which it cannot be said', told.unclear)),
    panel(told.live ? 'Difference to what is applied' : 'Nothing is applied yet: all of it is new', difference(told)),
    panel('The policy', element('pre', { tabindex: '0' }, told.yaml)),
  ];
}

export function review(main, namespace, name) {
  const body = element('div', { id: 'review' });
  main.append(element('p', { class: 'back' }, element('a', { href: '#segments' }, '← All Segments')), body);
  let shown = null;
  return {
    async refresh() {
      const told = await ask(`/api/segments/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`);
      // What somebody reads stays as it is until something in it changes.
      const { version, ...rest } = told;
      const now = JSON.stringify(rest);
      if (now === shown) return [];
      shown = now;
      const list = (title, edges, extra = []) => (edges?.length
        ? panel(title, element('div', { class: 'scroll' }, table(counted(edges.length, 'edge'), [...EDGE, ...extra], edges)))
        : '');
      const blocked = told.promotable && !told.promotable.holds && told.promotable.message !== told.reason
        && !told.promotable.message.endsWith(told.reason) ? element('p', { class: 'warn' }, told.promotable.message) : '';
      swap(body,
        element('div', { class: 'head' }, element('h1', {}, `${told.kind} ${told.workload} in ${told.namespace}`), phase(told.phase)),
        element('section', { class: 'panel' }, element('p', {}, told.reason ?? ''), blocked, facts(told)),
        list('Waiting for a person', told.quarantinedEdges, [['Why', (edge) => edge.suspicion]]),
        list('Novel: seen since, and not in the baseline', told.novelEdges, [
          ['Tries', (edge) => edge.count ?? '', 'number'],
          ['First seen', (edge) => time(edge.firstSeen), 'tight'],
          ['Policies say', decided, 'tight'],
        ]),
        told.notes?.length ? panel('Notes', element('ul', {}, told.notes.map((note) => element('li', {}, note)))) : '',
        ...proposal(told),
        list('Baseline', told.baseline, [['Through', (edge) => (edge.via ?? []).join(', ')], ['Seen at', (edge) => (edge.seenAt ?? []).join(', ')], ['Names', (edge) => (edge.names ?? []).join(', ')]]));
      return [];
    },
  };
}
