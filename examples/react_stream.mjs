// An answer in a React component: it survives a reload, a lost connection and a change of component.
import { createElement as h, StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { Penstock } from 'penstock';
import { useStream } from 'penstock/react';

const query = new URLSearchParams(location.search);
const penstock = new Penstock({ url: query.get('gateway') ?? 'http://localhost:8080' });

// The stream's id is all that a tab must remember: the answer is read again by it, from its start.
function Answer() {
  const { text, phase, end, error, losses, follow, stop } = useStream();
  useEffect(() => {
    if (sessionStorage.stream) follow(penstock.read(sessionStorage.stream));
  }, [follow]);
  const ask = () => {
    const said = query.get('say') ?? 'Hello';
    const stream = follow(penstock.start({ model: query.get('model') ?? 'demo', messages: [{ role: 'user', content: said }] }));
    const shown = stream.onopen;
    stream.onopen = (id) => {
      sessionStorage.stream = id;
      shown(id);
    };
  };
  const running = phase !== 'idle' && phase !== 'closed';
  return h('section', {}, [
    h('button', { key: 'ask', onClick: ask, disabled: running }, 'Ask'),
    h('button', { key: 'stop', onClick: stop, disabled: !running }, 'Stop'),
    h('p', { key: 'state', role: 'status' }, [end?.status ?? phase, losses > 0 && ` (${losses} connections lost)`]),
    h('pre', { key: 'text' }, text),
    error && h('p', { key: 'error', role: 'alert' }, error.message),
  ]);
}

function Page() {
  const [open, setOpen] = useState(true);
  return h('main', {}, [
    h('button', { key: 'toggle', onClick: () => setOpen(!open) }, open ? 'Hide' : 'Show'),
    open && h(Answer, { key: 'answer' }),
  ]);
}

createRoot(document.body.appendChild(document.createElement('div'))).render(h(StrictMode, {}, h(Page)));
