// The map: what the server laid out, which of it is shown, and what is told of what is chosen.

import { address, ask, asked, button, counted, element, empty, phase, swap, swatch, table, terms, time, visible } from './elements.js';
import { Drawing } from './canvas.js';

// More parties than this are not drawn one by one before somebody asks: names could not be read.
const MANY = 120;
// Rows of the table at a time.
const ROWS = 50;

/** An answer of the evaluator, for people. */
const ANSWERS = { Allowed: 'allowed', NotIsolated: 'not isolated, so allowed', Denied: 'denied', Unknown: 'not known' };

function about(party) {
  const { who } = party;
  switch (who.type) {
    case 'Workload': return [who.kind, who.phase].filter(Boolean).join(' · ');
    case 'External': return (who.names ?? []).join(', ') || 'outside';
    case 'Service': return who.externalName ? `stands for ${who.externalName}` : 'Service';
    case 'Unknown': return who.reason;
    default: return who.type;
  }
}

export function map(main) {
  let told = null;
  let edges = [];
  let drawn = false;
  // What is shown: where nothing of it has changed, nothing is made anew.
  let before = '';
  let rows = ROWS;
  // What was chosen, and who had the focus before.
  let open = null;
  let opener = null;
  const hidden = new Set();

  const option = (value, label) => element('option', { value }, label ?? value);
  const change = { onchange: () => filter() };
  const namespace = element('select', { ...change, id: 'namespace' }, option('', 'all'));
  const level = element('select', { ...change, id: 'level' }, option('parties', 'Workloads'), option('groups', 'Namespaces'));
  const find = element('input', { type: 'search', id: 'find', list: 'parties', autocomplete: 'off', oninput: () => filter() });
  const port = element('input', { id: 'port', inputmode: 'numeric', class: 'short', autocomplete: 'off', oninput: () => filter() });
  const mode = element('select', { ...change, id: 'mode' }, option('', 'all'), ['Off', 'Learn', 'Audit', 'Enforce'].map((word) => option(word)));
  const legend = element('ul', { class: 'legend', 'aria-label': 'States of connections: what is shown' });
  const summary = element('p', {});
  const canvas = element('canvas', { tabindex: '0', role: 'img', id: 'canvas',
    'aria-label': 'Map of connections. Arrow keys move it, plus and minus zoom, 0 shows all. The table below holds the same.' });
  const list = element('div', { class: 'scroll', id: 'connections' });
  const detail = element('aside', { id: 'detail', 'aria-label': 'What was chosen', tabindex: '-1', hidden: true });
  const tip = element('div', { class: 'tip', hidden: true, 'aria-hidden': 'true' });
  const nothing = empty('No connection yet', element('p', {}, 'Learners tell of connections as soon as somebody makes one. If none appears within a minute, nanoseg doctor says what is missing.'));
  nothing.hidden = true;
  const frame = element('div', { class: 'frame' }, canvas, nothing, tip);
  const whole = element('div', { class: 'map alone' }, frame, detail);
  const known = element('datalist', { id: 'parties' });
  const drawing = new Drawing(canvas, choose, hint);
  frame.append(element('div', { class: 'tools' },
    button('+', () => drawing.zoom(1.4), { 'aria-label': 'Zoom in' }),
    button('−', () => drawing.zoom(1 / 1.4), { 'aria-label': 'Zoom out' }),
    button('Fit', () => drawing.fit(), { 'aria-label': 'Show all' })));
  const key = (word) => element('kbd', {}, word);
  main.append(
    element('div', { class: 'head' }, element('h1', {}, 'Map'), summary),
    element('div', { class: 'filters' },
      element('label', { class: 'broad' }, 'Workload or name', find),
      element('label', {}, 'Namespace', namespace),
      element('label', {}, 'Show', level),
      element('label', {}, 'Port', port),
      element('label', {}, 'Mode', mode), known),
    legend, whole,
    element('p', { class: 'keys' }, 'On the map: ', key('←'), key('→'), key('↑'), key('↓'), ' move, ', key('+'), key('−'), ' zoom, ',
      key('0'), ' shows all. Anywhere: ', key('/'), ' finds a name, ', key('Esc'), ' closes what was chosen.'),
    element('div', { class: 'panel bare' }, list));
  const keyed = (event) => {
    if (event.key === 'Escape' && !detail.hidden) {
      event.preventDefault();
      close();
    } else if (event.key === '/' && !event.ctrlKey && !event.metaKey && !event.target.closest('input, select')) {
      event.preventDefault();
      find.focus();
    }
  };
  document.addEventListener('keydown', keyed);

  /** What lies under the pointer, in words. */
  function hint(found, x, y) {
    tip.hidden = !found;
    if (!found) return;
    const { party, stroke, group } = found;
    const telling = () => {
      if (party) return [asked(party) || party.title, party.about].join(', ');
      if (group) return `${group.title}: ${group.about}`;
      if (stroke.protocol) return `${stroke.source.title} → ${stroke.destination.title} ${stroke.protocol} ${stroke.port}: ${words(stroke.state)}`;
      return `${counted(stroke.edges, 'connection')}: ${words(stroke.state)}`;
    };
    tip.textContent = visible(telling());
    const left = Math.min(x + 14, frame.clientWidth - tip.offsetWidth - 8);
    const top = y + 18 + tip.offsetHeight > frame.clientHeight ? y - tip.offsetHeight - 8 : y + 18;
    tip.style.transform = `translate(${Math.max(left, 8)}px, ${top}px)`;
  }

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
      drawing.strokes(shown.map((edge) => ({
        from: edge.source.place, to: edge.destination.place, state: edge.state, told: edge,
        label: edge.protocol === 'TCP' ? String(edge.port) : `${edge.protocol} ${edge.port}`,
      })));
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
    const end = (party) => [party.title, element('span', { class: 'quiet' }, ` ${party.where}`)];
    const columns = [
      ['From', (edge) => end(edge.source)],
      ['To', (edge) => end(edge.destination)],
      ['Port', (edge) => `${edge.protocol} ${edge.port}`, 'tight'],
      ['State', (edge) => [swatch(edge.state), ` ${words(edge.state)}`]],
      ['More', (edge) => button('Evidence and rule', () => choose({ stroke: edge }), { class: 'plain', 'aria-label': `Evidence and rule: ${edge.source.title} to ${edge.destination.title}, ${edge.protocol} ${edge.port}` }), 'tight'],
    ];
    swap(list, table(`${shown.length.toLocaleString()} of ${counted(edges.length, 'connection')}`, columns, shown.slice(0, rows)),
      shown.length > rows ? button(`Show more (${(shown.length - rows).toLocaleString()})`, () => { rows += ROWS * 4; show(); }) : '');
  }

  function words(state) {
    return told.states.find(({ name }) => name === state)?.words ?? state;
  }

  function fillLegend() {
    // A state that nothing is in explains nothing.
    const shown = told.states.filter(({ name, count }) => count || hidden.has(name));
    swap(legend, shown.map(({ name, words: meaning, count }) => element('li', {}, element('label', {},
      element('input', { type: 'checkbox', checked: !hidden.has(name), value: name, 'aria-label': `${meaning} (${count})`, onchange: (event) => {
        if (event.target.checked) hidden.delete(name);
        else hidden.add(name);
        filter();
      } }),
      swatch(name), meaning, element('strong', {}, count.toLocaleString())))));
  }

  function summarise() {
    const { totals, observed } = told;
    const kinds = [[totals.workloads, 'workload'], [totals.external, 'address outside', 'addresses outside'], [totals.nodes, 'node'], [totals.edges, 'connection']];
    summary.replaceChildren(kinds.filter(([number]) => number).map(([number, one, many]) => counted(number, one, many)).join(' · '));
    if (observed) summary.append(', seen from ', time(observed.firstSeen), ' to ', time(observed.lastSeen));
    nothing.hidden = told.parties.length > 0;
  }

  function tell(...content) {
    swap(detail, button('Close', close, { class: 'close' }), ...content);
    detail.hidden = false;
    whole.classList.remove('alone');
  }

  function close() {
    detail.hidden = true;
    whole.classList.add('alone');
    open = null;
    drawing.choose(null);
    // Who was taken away from something is taken back there, or to what stands in its place by now.
    const label = opener?.ariaLabel;
    const back = opener?.isConnected ? opener : [...list.querySelectorAll('button')].find((made) => label && made.ariaLabel === label);
    back?.focus({ preventScroll: true });
    opener = null;
  }

  async function choose(found) {
    if (!found) return;
    if (detail.hidden) opener = document.activeElement;
    await explain(found);
    detail.focus({ preventScroll: false });
  }

  /** Tells what is known of something, and does so again for later maps. */
  async function explain(found) {
    open = found;
    try {
      if (found.stroke?.protocol) await tellEdge(found.stroke);
      else if (found.stroke) tellLink(found.stroke);
      else if (found.party) await tellParty(found.party);
      else tellGroup(found.group);
    } catch (error) {
      tell(element('p', { class: 'bad' }, error.message));
    }
  }

  /** The same thing on the map as it is now; `null` if it is gone. */
  function again({ stroke, party, group }) {
    const pick = (key, things, is) => {
      const found = things.find(is);
      return found ? { [key]: found } : null;
    };
    if (party) return pick('party', told.parties, ({ id }) => id === party.id);
    if (group) return pick('group', told.groups, ({ id }) => id === group.id);
    if (!stroke.protocol) return pick('stroke', told.links, (link) => link.source === stroke.source && link.destination === stroke.destination);
    return pick('stroke', edges, (edge) => edge.source.id === stroke.source.id && edge.destination.id === stroke.destination.id
      && edge.protocol === stroke.protocol && edge.port === stroke.port);
  }

  function side(name, judged) {
    const rules = (judged.rules ?? []).map(({ policy, index }) => `${policy}, ${name} rule ${index + 1}`);
    return element('div', {}, `${name}: ${ANSWERS[judged.answer]}`,
      rules.map((rule) => element('div', {}, `by ${rule}`)),
      judged.reason ? element('div', {}, judged.reason) : '');
  }

  function judgement(title, judged) {
    if (!judged) return '';
    const tone = { Denied: 'bad', Unknown: 'warn' }[judged.answer] ?? 'good';
    return element('section', {}, element('h3', {}, title), element('p', { class: tone }, ANSWERS[judged.answer]),
      side('ingress', judged.ingress), side('egress', judged.egress));
  }

  async function tellEdge(edge) {
    drawing.choose(edge);
    // As the document names a connection.
    const id = `${edge.source.id}>${edge.destination.id}:${edge.protocol}:${edge.port}`;
    const full = await ask(`/api/map/edge?id=${encodeURIComponent(id)}`);
    const seen = full.observed;
    const question = address('what-if', asked(edge.source), asked(edge.destination), edge.protocol, edge.port);
    tell(
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
          ['Opened by', (seen.sourceProcesses ?? []).join(', ')], ['Listened to by', (seen.destinationProcesses ?? []).join(', ')],
        ]), seen.reports.map((report) => element('p', {}, `At the ${report.reporter}: ${report.attempted} attempted, ${report.established} established, ${report.refused} refused; told by ${report.nodes.join(', ')}`))]
        : element('p', {}, 'None since the controller began: only the baseline knows it.'),
      judgement('Policies in force', full.live),
      judgement('With what is proposed', full.proposed),
      element('p', {}, element('a', { href: question }, 'What if')),
      [edge.source, edge.destination].map(reviewed));
  }

  function reviewed(party) {
    const { who } = party;
    if (who.type !== 'Workload' || !who.segment) return '';
    return element('p', {}, element('a', { href: address('segments', who.namespace, who.segment) }, `Review ${who.kind} ${who.name}`));
  }

  function tellLink(link) {
    drawing.choose(link);
    const title = (id) => told.groups.find((group) => group.id === id)?.title ?? id;
    tell(element('h2', {}, `${title(link.source)} → ${title(link.destination)}`),
      element('p', {}, counted(link.edges, 'connection')),
      terms(Object.entries(link.states).map(([state, number]) => [words(state), number])),
      button('Show the workloads of both', () => { namespace.value = link.source; level.value = 'parties'; filter(); }));
  }

  function tellGroup(group) {
    tell(element('h2', {}, group.title), element('p', {}, group.about),
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
    const { who, processes = [] } = await ask(`/api/map/party?id=${encodeURIComponent(party.id)}`);
    const own = edges.filter((edge) => edge.source === party || edge.destination === party);
    const isolation = (judged) => judged && [judged.status, ...(judged.policies ?? [])].join(', ');
    tell(
      element('h2', {}, party.title),
      terms([
        ['What', asked(party) || who.type], ['Phase', who.segment && phase(who.segment.phase)], ['Because', who.segment?.reason], ['Mode', who.segment?.mode],
        ['Ingress', isolation(who.protection?.ingress)], ['Egress', isolation(who.protection?.egress)],
        ['Pods', who.pods?.map((pod) => pod.name).join(', ')],
        ['Images', who.images?.map((image) => [image.name, image.digest].filter(Boolean).join(' ')).join(', ')],
        ['Asked for as', who.names?.join(', ')], ['Addresses', who.addresses?.join(', ')],
        ['Seen to speak', [...processes.slice(0, 20), ...(processes.length > 20 ? [`${processes.length - 20} more`] : [])].join(', ')],
      ]),
      reviewed(party),
      element('h3', {}, counted(own.length, 'connection')),
      element('ul', { class: 'list' }, own.slice(0, 100).map((edge) => element('li', {},
        button(`${edge.source === party ? '→' : '←'} ${edge.source === party ? edge.destination.title : edge.source.title} ${edge.protocol} ${edge.port}`,
          () => choose({ stroke: edge }), { class: 'plain' }),
        element('div', { class: 'quiet' }, swatch(edge.state), ` ${words(edge.state)}`)))));
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
      for (const group of told.groups) {
        group.title = visible(group.title);
        group.about = counted(group.parties, 'party', 'parties');
      }
      for (const party of told.parties) {
        party.title = visible(party.title);
        party.about = visible(about(party));
        party.where = groups.get(party.group)?.title ?? '';
      }
      edges = lines.edges.map(([source, destination, number, protocol, state]) => ({
        source: told.parties[source], destination: told.parties[destination], port: number, protocol, state: told.states[state].name, rank: state,
      }));
      // What most needs attention comes first.
      edges.sort((one, other) => one.rank - other.rank);
      const chosen = namespace.value;
      namespace.replaceChildren(option('', 'all'), ...told.groups.map((group) => option(group.id, group.title)));
      namespace.value = groups.has(chosen) ? chosen : '';
      known.replaceChildren(...told.parties.slice(0, 2000).map((party) => option(party.title)));
      // Of two boxes nobody learns anything.
      const telling = told.groups.length > 2 && (told.parties.length > MANY || !drawing.readable(told));
      if (!drawn && telling) level.value = 'groups';
      fillLegend();
      summarise();
      drawing.detailed = level.value === 'parties';
      drawing.show(told);
      drawn ||= told.parties.length > 0;
      show();
      if (open) {
        const found = again(open);
        if (found) await explain(found);
        else close();
      }
      return told.awaited;
    },
    recolour: () => drawing.rest(),
    close() {
      document.removeEventListener('keydown', keyed);
      drawing.close();
    },
  };
}
