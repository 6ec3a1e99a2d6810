// Two ends and a port: the server's evaluator answers.

import { ask, asked, element, terms } from './elements.js';

function answer(title, told) {
  const tone = { Allowed: 'good', Denied: 'bad', Mixed: 'warn', Unknown: 'warn' }[told.verdict];
  return element('section', {},
    element('h2', {}, title),
    element('p', { class: `verdict ${tone}` }, told.verdict),
    told.ways.map((way) => element('div', {},
      told.ways.length > 1 ? element('h3', {}, `${way.pairs} pairs: ${way.verdict}`) : '',
      terms([
        ['Such as', way.example],
        ['Decided by', way.by.join('; ')],
        ['Egress', way.egress.reason],
        ['Ingress', way.ingress.reason],
      ]),
      way.missing.map((text) => element('pre', { tabindex: '0' }, text)))));
}

export function whatIf(main, [from, to, protocol, port]) {
  const known = element('datalist', { id: 'known' });
  const field = (label, name, value, attributes = {}) => element('label', {}, label,
    element('input', { name, value: value ?? '', required: true, autocomplete: 'off', ...attributes }));
  const chosen = (word) => (word === (protocol ?? 'TCP'));
  const form = element('form', { class: 'filters', onsubmit: (event) => { event.preventDefault(); question(); } },
    field('From', 'from', from, { list: 'known' }),
    field('To', 'to', to, { list: 'known' }),
    field('Port of the listener', 'port', port, { inputmode: 'numeric', class: 'short' }),
    element('label', {}, 'Protocol', element('select', { name: 'protocol' },
      ['TCP', 'UDP', 'SCTP'].map((word) => element('option', { selected: chosen(word) }, word)))),
    element('button', { type: 'submit' }, 'Ask'));
  const body = element('div', { id: 'answer', 'aria-live': 'polite' });
  main.append(element('h1', {}, 'What if'),
    element('p', { class: 'quiet' }, 'A workload as namespace/Kind/name, a pod as namespace/name, node NAME, or an address.'),
    form, known, body);
  const question = async () => {
    const query = new URLSearchParams(new FormData(form));
    try {
      const told = await ask(`/api/what-if?${query}`);
      const pairs = told.pairs === told.of ? '' : ` (${told.pairs} of ${told.of} pairs of pods were asked about)`;
      body.replaceChildren(
        element('p', {}, `${told.from} → ${told.to} ${told.protocol} ${told.port}${pairs}`),
        answer('Under the policies in force', told.live),
        answer('With every proposal applied', told.proposed));
    } catch (error) {
      body.replaceChildren(element('p', { class: 'bad' }, error.message));
    }
  };
  let asking = Boolean(from && to && port);
  let filled = false;
  return {
    async refresh() {
      if (asking) question();
      asking = false;
      if (filled) return [];
      filled = true;
      const told = await ask('/api/map');
      known.replaceChildren(...told.parties.map(asked).filter(Boolean).map((value) => element('option', { value })));
      return told.awaited;
    },
  };
}
