// The map: what the server laid out, which of it is shown, and what is told of what is chosen.

import { ask, asked, button, element, swap, table, terms, time } from './elements.js';
import { Drawing, DASHES } from './canvas.js';

// More parties than this are not drawn one by one before somebody asks: names could not be read.
const MANY = 120;
// Rows of the table at a time.
const ROWS = 50;

function about(party) {
  const { who } = party;
  switch (who.type) {
    case 'Workload': return [who.kind, who.phase].filter(Boolean).join(', ');
    case 'External': return (who.names ?? []).join(', ') || 'outside';
    case 'Service': return who.externalName ? `stands for ${who.externalName}` : 'Service';
    case 'Unknown': return who.reason;
    default: return who.type;
  }
}

function swatch(state) {
  const dash = DASHES[state];
  const style = dash.length === 0 ? '' : dash[0] > 4 ? 'dashed' : 'dotted';
  return element('span', { class: `state ${state} ${style}`, 'aria-hidden': 'true' });
}

export function map(main) {
  let told = null;
  let edges = [];
  let drawn = false;
  // What is shown: where nothing of it has changed, nothing is made anew.
  let before = '';
  let rows = ROWS;
  const hidden = new Set();

  const option = (value, label) => element('option', { value }, label ?? value);
  const change = { onchange: () => filter() };
  const namespace = element('select', { ...change, id: 'namespace' }, option('', 'all'));
  const level = element('select', { ...change, id: 'level' }, option('parties', 'Workloads'), option('groups', 'Namespaces'));
  const find = element('input', { type: 'search', id: 'find', list: 'parties', autocomplete: 'off', oninput: () => filter() });
  const port = element('input', { id: 'port', inputmode: 'numeric', class: 'short', autocomplete: 'off', oninput: () => filter() });
  const mode = element('select', { ...change, id: 'mode' }, option('', 'all'), ['Off', 'Learn', 'Audit', 'Enforce'].map((word) => option(word)));
  const legend = element('ul', { class: 'legend', 'aria-label': 'States of connections: what is shown' });
  const canvas = element('canvas', { tabindex: '0', role: 'img', id: 'canvas',
    'aria-label': 'Map of connections. Arrow keys move it, plus and minus zoom, 0 shows all. The table below holds the same.' });
  const list = element('div', { class: 'scroll', id: 'connections' });
  const detail = element('aside', { id: 'detail', 'aria-label': 'What was chosen', tabindex: '-1', hidden: true });
  const frame = element('div', { class: 'frame' }, canvas);
  const whole = element('div', { class: 'map alone' }, frame, detail);
  const known = element('datalist', { id: 'parties' });
  const drawing = new Drawing(canvas, choose);
  frame.append(element('div', { class: 'tools' },
    button('+', () => drawing.zoom(1.4), { 'aria-label': 'Zoom in' }),
    button('−', () => drawing.zoom(1 / 1.4), { 'aria-label': 'Zoom out' }),
    button('Fit', () => drawing.fit(), { 'aria-label': 'Show all' })));
  main.append(
    element('h1', {}, 'Map'),
    element('div', { class: 'filters' },
      element('label', {}, 'Show', level),
      element('label', {}, 'Namespace', namespace),
      element('label', {}, 'Workload or name', find),
      element('label', {}, 'Port', port),
      element('label', {}, 'Mode', mode), known),
    legend, whole, list);

  /** The connections that the filters leave. */
  function kept() {
    const word = find.value.trim().toLowerCase();
    const number = port.value.trim();
    const group = namespace.value;
    const means = (party) => !word || `${asked(party)} ${party.title} ${(party.who.names ?? []).join(' ')}`.toLowerCase().includes(word);
    const either = (edge, test) => test(edge.source) || test(edge.destination);
    return edges.filter((edge) => !hidden.has(edge.state)
      && (!group || either(edge, (party) => party.group === group))
      && (!mode.value || either(edge, (party) => party.who.mode === mode.value))
      && (!number || String(edge.port) === number)
      && (!word || either(edge, means)));
  }

  function filter() {
    if (!told) return;
    rows = ROWS;
    show();
  }

  function show() {
    const shown = kept();
    const filtered = shown.length < edges.length;
    drawing.detailed = level.value === 'parties';
    const touched = new Set(shown.flatMap((edge) => [edge.source, edge.destination]));
    for (const party of told.parties) party.shown = !filtered || touched.has(party);
    if (drawing.detailed) {
      drawing.strokes(shown.map((edge) => ({ from: edge.source.place, to: edge.destination.place, state: edge.state, told: edge })));
    } else {
      const pairs = new Set(shown.map((edge) => `${edge.source.group} ${edge.destination.group}`));
      const place = new Map(told.groups.map((group) => [group.id, group.place]));
      drawing.strokes(told.links
        .filter((link) => pairs.has(`${link.source} ${link.destination}`))
        .map((link) => ({ from: place.get(link.source), to: place.get(link.destination), state: link.state, weight: 1 + Math.round(Math.log10(link.edges)), told: link })));
    }
    connections(shown);
  }

  function connections(shown) {
    const columns = [
      ['From', (edge) => edge.source.title],
      ['', (edge) => edge.source.where],
      ['To', (edge) => edge.destination.title],
      ['', (edge) => edge.destination.where],
      ['Port', (edge) => `${edge.protocol} ${edge.port}`],
      ['State', (edge) => [swatch(edge.state), ' ', words(edge.state)]],
      ['More', (edge) => button('Evidence and rule', () => choose({ stroke: edge }), { class: 'plain', 'aria-label': `Evidence and rule: ${edge.source.title} to ${edge.destination.title}, ${edge.protocol} ${edge.port}` })],
    ];
    columns[1][0] = 'in';
    columns[3][0] = 'in ';
    swap(list, table(`${shown.length} of ${edges.length} connections`, columns, shown.slice(0, rows)),
      shown.length > rows ? button(`Show more (${shown.length - rows})`, () => { rows += ROWS * 4; show(); }) : '');
  }

  function words(state) {
    return told.states.find(({ name }) => name === state)?.words ?? state;
  }

  function fillLegend() {
    swap(legend, told.states.map(({ name, words: meaning, count }) => element('li', {}, element('label', {},
      element('input', { type: 'checkbox', checked: !hidden.has(name), value: name, onchange: (event) => {
        if (event.target.checked) hidden.delete(name);
        else hidden.add(name);
        filter();
      } }),
      swatch(name), ` ${meaning} (${count})`))));
  }

  function open(...content) {
    detail.replaceChildren(button('Close', close, { class: 'close' }), ...content.flat(Infinity).filter(Boolean));
    detail.hidden = false;
    whole.classList.remove('alone');
    detail.focus({ preventScroll: false });
  }

  function close() {
    detail.hidden = true;
    whole.classList.add('alone');
    drawing.choose(null);
  }

  async function choose(found) {
    if (!found) return;
    try {
      if (found.stroke?.protocol) await tellEdge(found.stroke);
      else if (found.stroke) tellLink(found.stroke);
      else if (found.party) await tellParty(found.party);
      else tellGroup(found.group);
    } catch (error) {
      open(element('p', { class: 'bad' }, error.message));
    }
  }

  function side(name, judged) {
    const rules = (judged.rules ?? []).map(({ policy, index }) => `${policy}, ${name} rule ${index + 1}`);
    return element('div', {}, `${name}: ${judged.answer}`,
      rules.map((rule) => element('div', {}, `by ${rule}`)),
      judged.reason ? element('div', {}, judged.reason) : '');
  }

  function judgement(title, judged) {
    if (!judged) return '';
    const tone = { Denied: 'bad', Unknown: 'warn' }[judged.answer] ?? 'good';
    return element('section', {}, element('h3', {}, title), element('p', { class: tone }, judged.answer),
      side('ingress', judged.ingress), side('egress', judged.egress));
  }

  async function tellEdge(edge) {
    drawing.choose(edge);
    // As the document names a connection.
    const id = `${edge.source.id}>${edge.destination.id}:${edge.protocol}:${edge.port}`;
    const full = await ask(`/api/map/edge?id=${encodeURIComponent(id)}`);
    const seen = full.observed;
    const question = [asked(edge.source), asked(edge.destination), edge.protocol, edge.port].map((part) => encodeURIComponent(part)).join('/');
    open(
      element('h2', {}, `${edge.source.title} → ${edge.destination.title}`),
      terms([
        ['From', asked(edge.source) || edge.source.title], ['To', asked(edge.destination) || edge.destination.title],
        ['Port', `${edge.protocol} ${edge.port}`],
        ['State', full.states.map(words).join('; ')], ['Suspicion', full.suspicion],
      ]),
      element('h3', {}, 'Evidence'),
      seen
        ? [terms([
          ['First seen', time(seen.firstSeen)], ['Last seen', time(seen.lastSeen)], ['Became', seen.outcome],
          ['Through Service', (seen.via ?? []).join(', ')], ['Asked for as', (seen.names ?? []).join(', ')],
        ]), seen.reports.map((report) => element('p', {}, `At the ${report.reporter}: ${report.attempted} attempted, ${report.established} established, ${report.refused} refused; told by ${report.nodes.join(', ')}`))]
        : element('p', {}, 'None since the controller began: only the baseline knows it.'),
      judgement('Policies in force', full.live),
      judgement('With what is proposed', full.proposed),
      element('p', {}, element('a', { href: `#what-if/${question}` }, 'What if')),
      [edge.source, edge.destination].map(reviewed));
  }

  function reviewed(party) {
    const { who } = party;
    if (who.type !== 'Workload' || !who.segment) return '';
    return element('p', {}, element('a', { href: `#segments/${encodeURIComponent(who.namespace)}/${encodeURIComponent(who.segment)}` }, `Review ${who.kind} ${who.name}`));
  }

  function tellLink(link) {
    drawing.choose(link);
    const title = (id) => told.groups.find((group) => group.id === id)?.title ?? id;
    open(element('h2', {}, `${title(link.source)} → ${title(link.destination)}`),
      element('p', {}, `${link.edges} connections`),
      terms(Object.entries(link.states).map(([state, number]) => [words(state), number])),
      button('Show the workloads of both', () => { namespace.value = link.source; level.value = 'parties'; filter(); }));
  }

  function tellGroup(group) {
    open(element('h2', {}, group.title), element('p', {}, group.about),
      terms([['Open in ingress', group.openIngress], ['Open in egress', group.openEgress]]),
      button('Show its connections alone', () => {
        namespace.value = group.id;
        level.value = 'parties';
        filter();
        drawing.look(group.place);
      }));
  }

  async function tellParty(party) {
    drawing.choose(party);
    const { who } = await ask(`/api/map/party?id=${encodeURIComponent(party.id)}`);
    const own = edges.filter((edge) => edge.source === party || edge.destination === party);
    const isolation = (judged) => judged && [judged.status, ...(judged.policies ?? [])].join(', ');
    open(
      element('h2', {}, party.title),
      terms([
        ['What', asked(party) || who.type], ['Phase', who.segment?.phase], ['Because', who.segment?.reason], ['Mode', who.segment?.mode],
        ['Ingress', isolation(who.protection?.ingress)], ['Egress', isolation(who.protection?.egress)],
        ['Pods', who.pods?.map((pod) => pod.name).join(', ')],
        ['Images', who.images?.map((image) => [image.name, image.digest].filter(Boolean).join(' ')).join(', ')],
        ['Asked for as', who.names?.join(', ')], ['Addresses', who.addresses?.join(', ')],
      ]),
      reviewed(party),
      element('h3', {}, `${own.length} connections`),
      element('ul', {}, own.slice(0, 100).map((edge) => element('li', {},
        button(`${edge.source === party ? '→' : '←'} ${edge.source === party ? edge.destination.title : edge.source.title} ${edge.protocol} ${edge.port}`,
          () => choose({ stroke: edge }), { class: 'plain' }), ` ${words(edge.state)}`))));
  }

  return {
    async refresh() {
      const [next, lines] = await Promise.all([ask('/api/map'), ask('/api/map/edges')]);
      // Numbers of parties hold within one version alone.
      if (next.version !== lines.version) return this.refresh();
      const { version, at, ...rest } = next;
      const now = JSON.stringify([rest, lines.edges]);
      if (now === before) return next.awaited;
      before = now;
      told = next;
      const groups = new Map(told.groups.map((group) => [group.id, group]));
      for (const group of told.groups) group.about = `${group.parties} ${group.parties === 1 ? 'party' : 'parties'}`;
      for (const party of told.parties) {
        party.about = about(party);
        party.where = groups.get(party.group)?.title ?? '';
      }
      edges = lines.edges.map(([source, destination, number, protocol, state]) => ({
        source: told.parties[source], destination: told.parties[destination], port: number, protocol, state: told.states[state].name,
      }));
      const chosen = namespace.value;
      namespace.replaceChildren(option('', 'all'), ...told.groups.map((group) => option(group.id, group.title)));
      namespace.value = groups.has(chosen) ? chosen : '';
      known.replaceChildren(...told.parties.slice(0, 2000).map((party) => option(party.title)));
      if (!drawn && told.parties.length > MANY) level.value = 'groups';
      fillLegend();
      drawing.show(told, !drawn && told.parties.length > 0);
      drawn ||= told.parties.length > 0;
      show();
      return told.awaited;
    },
    recolour: () => drawing.rest(),
    close: () => drawing.close(),
  };
}
