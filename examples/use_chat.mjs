// A chat with Vercel's AI SDK, whose answers survive a reload and a lost connection.
import { useChat } from '@ai-sdk/react';
import { DefaultChatTransport } from 'ai';
import { createElement as h, useState } from 'react';
import { createRoot } from 'react-dom/client';

const GATEWAY = new URLSearchParams(location.search).get('gateway') ?? 'http://localhost:8080';
const api = `${GATEWAY}/ui/chat`;
const transport = new DefaultChatTransport({ api, body: { model: 'demo' } });

// A reload is the same chat again. What was said before is kept by the page; here, in the tab.
const id = (sessionStorage.chat ??= crypto.randomUUID());
const earlier = JSON.parse(sessionStorage.messages ?? '[]');
const keep = (messages) => (sessionStorage.messages = JSON.stringify(messages));

function Chat() {
  const [text, setText] = useState('');
  const chat = useChat({ id, transport, messages: earlier, resume: true, onFinish: ({ messages }) => keep(messages) });
  const ask = (event) => {
    event.preventDefault();
    chat.sendMessage({ text });
    setText('');
  };
  const stop = async () => {
    await chat.stop(); // closes the connection, which stops nothing
    await fetch(`${api}/${encodeURIComponent(id)}/stop`, { method: 'POST' });
  };
  const parts = ({ parts }) => parts.filter(({ type }) => type === 'text').map(({ text }) => text);
  return h('main', {}, [
    ...chat.messages.map((message) => h('p', { key: message.id, className: message.role }, parts(message))),
    chat.error && h('p', { key: 'error', role: 'alert' }, chat.error.message),
    h('form', { key: 'form', onSubmit: ask }, [
      h('input', { key: 'text', 'aria-label': 'Message', value: text, onChange: ({ target }) => setText(target.value) }),
      h('button', { key: 'ask' }, 'Send'),
      h('button', { key: 'stop', type: 'button', onClick: stop, disabled: chat.status === 'ready' }, 'Stop'),
    ]),
  ]);
}

createRoot(document.body.appendChild(document.createElement('div'))).render(h(Chat));
