// Two ends and a port: the server's evaluator answers.

import { address, ask, asked, button, element, empty, terms } from './elements.js';

const TONES = { Allowed: 'good', Denied: 'bad', Mixed: 'warn', Unknown: 'warn' };

function answer(title, told) {
  const tone = TONES[told.verdict];
  return element('section', { class: `panel ${tone}` },
    element('h2', {}, title),
    element('p', { class: `verdict ${tone}` }, told.verdict),
    told.ways.map((way) => element('div', {},
      told.ways.length > 1 ? element('h3', {}, `${way.pairs} pairs: ${way.verdict}`) : '',
      terms([
        ['Decided by', way.by.join('; ')],
        ['Egress', way.egress.reason],
        ['Ingress', way.ingress.reason],
        ['Such as', way.example],
      ]),
      way.missing.map((text) => element('pre', { tabindex: '0' }, text)))));
}

export function whatIf(main, [from, to, protocol, port]) {
  const known = element('datalist', { id: 'known' });
  const field = (label, name, value, attributes = {}) => element('label', { class: attributes.class ? null : 'broad' }, label,
    element('input', { name, value: value ?? '', required: true, autocomplete: 'off', ...attributes }));
  const chosen = (word) => (word === (protocol ?? 'TCP'));
  const form = element('form', { class: 'filters ask', onsubmit: (event) => { event.preventDefault(); question(); } },
    field('From', 'from', from, { list: 'known', placeholder: 'shop/Deployment/web' }),
    field('To', 'to', to, { list: 'known', placeholder: 'shop/db-0' }),
    field('Port of the listener', 'port', port, { inputmode: 'numeric', class: 'short', placeholder: '5432' }),
    element('label', {}, 'Protocol', element('select', { name: 'protocol' },
      ['TCP', 'UDP', 'SCTP'].map((word) => element('option', { selected: chosen(word) }, word)))),
    element('button', { type: 'submit' }, 'Ask'),
    button('Swap ends', () => {
      const { from: one, to: other } = form.elements;
      [one.value, other.value] = [other.value, one.value];
    }));
  const body = element('div', { id: 'answer', 'aria-live': 'polite' },
    empty('May one end connect to the other?', element('p', {}, 'The evaluator that every proposal has passed answers: under the policies in force, and with every proposal applied. It names the rule that decides, or prints the one that is missing.')));
  main.append(
    element('div', { class: 'head' }, element('h1', {}, 'What if'),
      element('p', {}, 'A workload as namespace/Kind/name, a pod as namespace/name, node NAME, or an address.')),
    form, known, body);
  const question = async () => {
    const typed = new FormData(form);
    const query = new URLSearchParams(typed);
    // The address of an answer can be passed on.
    history.replaceState(null, '', address('what-if', ...['from', 'to', 'protocol', 'port'].map((name) => typed.get(name).trim())));
    try {
      const told = await ask(`/api/what-if?${query}`);
      const pairs = told.pairs === told.of ? '' : ` (${told.pairs} of ${told.of} pairs of pods were asked about)`;
      body.replaceChildren(
        element('p', {}, `${told.from} → ${told.to} ${told.protocol} ${told.port}${pairs}`),
        element('div', { class: 'verdicts' },
          answer('Under the policies in force', told.live),
          answer('With every proposal applied', told.proposed)));
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
