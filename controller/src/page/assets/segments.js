// The table of Segments, and the review of one proposal.

import { ask, button, element, swap, table, terms, time } from './elements.js';

const GRAVE = { Degraded: 'bad', Enforcing: 'good', Stable: 'warn', Stabilizing: 'warn' };

function address(segment) {
  return `#segments/${encodeURIComponent(segment.namespace)}/${encodeURIComponent(segment.name)}`;
}

function phase(segment) {
  return element('span', { class: `phase ${GRAVE[segment.phase] ?? ''}` }, segment.phase);
}

function coverage(segment) {
  const side = (name, state) => state && element('span', { class: state.holds ? 'good' : 'quiet', title: state.message },
    state.holds ? `${name} ` : `${name} open `);
  if (!segment.ingress && !segment.egress) return '';
  return element('span', {}, side('ingress', segment.ingress), side('egress', segment.egress));
}

const COLUMNS = [
  ['Segment', (row) => element('a', { href: address(row) }, `${row.namespace}/${row.name}`)],
  ['Mode', (row) => row.mode ?? ''],
  ['Phase', phase],
  ['Isolates', coverage],
  ['Edges', (row) => row.edges ?? 0, true],
  ['Novel', (row) => row.novel ?? 0, true],
  ['Waiting', (row) => row.quarantined ?? 0, true],
  ['Lost', (row) => row.loss ?? 0, true],
  ['What blocks promotion', (row) => (row.promotable && !row.promotable.holds ? row.promotable.message.replace(/^not promoted because /, '') : '')],
];

export function segments(main) {
  const find = element('input', { type: 'search', id: 'find', oninput: () => fill() });
  const body = element('div', { class: 'scroll' });
  main.append(
    element('h1', {}, 'Segments'),
    element('div', { class: 'filters' }, element('label', {}, 'Find', find)),
    body);
  let rows = [];
  const fill = () => {
    const word = find.value.trim().toLowerCase();
    const told = rows.filter((row) => !word || `${row.namespace}/${row.name} ${row.mode} ${row.phase} ${row.reason}`.toLowerCase().includes(word));
    swap(body, told.length || word
      ? table(`${told.length} of ${rows.length} Segments`, COLUMNS, told)
      : element('p', {}, 'There is no Segment yet: no workload was seen talking.'));
  };
  return {
    async refresh() {
      const told = await ask('/api/segments');
      if (JSON.stringify(rows) !== JSON.stringify(told.segments)) {
        rows = told.segments;
        fill();
      } else if (!rows.length) {
        fill();
      }
      return told.awaited;
    },
  };
}

const EDGE = [
  ['From', (edge) => edge.source],
  ['To', (edge) => edge.destination],
  ['Port', (edge) => `${edge.protocol} ${edge.port}`],
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
  const more = told.total - told.listed.length;
  return element('div', {},
    table(`${title}: ${told.total}`, [
      ['Connection', (change) => change.what],
      ['Before', (change) => change.before],
      ['After', (change) => change.after],
      ['By', (change) => change.by.join('; ')],
    ], told.listed),
    more > 0 ? element('p', { class: 'quiet' }, `and ${more} more`) : '');
}

export function review(main, namespace, name) {
  const body = element('div', { id: 'review' });
  main.append(element('p', {}, element('a', { href: '#segments' }, 'All Segments')), body);
  let hash = null;
  return {
    async refresh() {
      const told = await ask(`/api/segments/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`);
      // What somebody reads stays as it is until something in it changes.
      const { version, ...rest } = told;
      const now = JSON.stringify(rest);
      if (now === hash) return [];
      hash = now;
      const proposed = told.rules
        ? [
          element('h2', {}, 'Approve'), commands(told.commands),
          element('h2', {}, 'Rules, and the edges that they come from'),
          element('p', {}, `The policy isolates ${(told.rules.isolates ?? []).join(' and ')} of the pods that it selects.`),
          rules(told.rules), told.rules.rest.map((line) => element('p', { class: 'quiet' }, line)),
          element('h2', {}, 'What would change'),
          changes('Connections that open', told.opened),
          changes('Connections that close', told.closed),
          changes('Connections of which it cannot be said', told.unclear),
          element('h2', {}, told.live ? 'Difference to what is applied' : 'Nothing is applied yet: all of it is new'),
          difference(told),
          element('h2', {}, 'The policy'), element('pre', { tabindex: '0' }, told.yaml),
        ]
        : [element('p', {}, 'There is no proposal.')];
      const list = (title, edges, extra = []) => (edges?.length ? [element('h2', {}, title), table(`${edges.length} edges`, [...EDGE, ...extra], edges)] : []);
      swap(body,
        element('h1', {}, `${told.kind} ${told.workload} in ${told.namespace}`),
        element('p', {}, phase(told), `: ${told.reason ?? ''}`),
        terms([
          ['Mode', told.mode], ['Promotion', told.promotion], ['Learned since', time(told.learningSince)], ['Frozen', time(told.frozenAt)],
          ['Lost while learning', told.loss], ['Proposal', told.proposalHash], ['Approved', told.approval ?? 'none'], ['Applied', told.appliedHash ?? 'none'],
        ]),
        told.promotable && !told.promotable.holds ? element('p', { class: 'warn' }, told.promotable.message) : '',
        ...list('Waiting for a person', told.quarantinedEdges, [['Why', (edge) => edge.suspicion]]),
        ...list('Novel: seen since, and not in the baseline', told.novelEdges),
        ...(told.notes?.length ? [element('h2', {}, 'Notes'), element('ul', {}, told.notes.map((note) => element('li', {}, note)))] : []),
        ...proposed.flat(Infinity),
        ...list('Baseline', told.baseline, [['Through', (edge) => (edge.via ?? []).join(', ')], ['Seen at', (edge) => (edge.seenAt ?? []).join(', ')], ['Names', (edge) => (edge.names ?? []).join(', ')]]));
      return [];
    },
  };
}
