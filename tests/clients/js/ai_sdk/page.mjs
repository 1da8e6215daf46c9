// A page with a chat, as an application of the AI SDK has it. `HOOK` and `SDK` are replaced by the packages of
// one version. What it shows is read, and what a user would press is called, from the test.
import { createElement, useEffect } from 'react';
import { createRoot } from 'react-dom/client';
import { useChat } from 'HOOK';
import { DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls, readUIMessageStream } from 'SDK';

const API = '/ui/chat';

function Chat({ id, body, messages, resume, fetch }) {
  const chat = useChat({
    id,
    messages,
    resume,
    transport: new DefaultChatTransport({ api: API, body, fetch }),
    onError: (error) => window.errors.push(error.message),
    onFinish: (end) => window.ends.push({ disconnect: end.isDisconnect, reason: end.finishReason ?? null }),
    onToolCall: ({ toolCall }) => {
      window.called.push(toolCall.input);
      const add = window.chat.addToolOutput ?? window.chat.addToolResult;
      add({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output: { done: true } }); // not awaited
    },
    sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
  });
  window.chat = chat;
  useEffect(() => {
    window.status = chat.status;
    window.states.push(chat.status);
  }, [chat.status]);
  return null;
}

let root;
let key = 0;
window.errors = [];
window.ends = [];
window.called = [];
window.states = [];

/** Show a chat, anew. */
window.mount = (settings) => {
  root ??= createRoot(document.body.appendChild(document.createElement('div')));
  window.chat = undefined;
  root.render(createElement(Chat, { ...settings, key: (key += 1) }));
};

/** The same, on the gateway's `durableFetch`. */
window.mountDurable = async (settings) => {
  const { durableFetch } = await import(`${location.origin}/client/penstock.js`);
  window.mount({ ...settings, fetch: durableFetch() });
};

/** Return what the SDK makes of a body. */
window.judge = async (body) => {
  const transport = new DefaultChatTransport({ api: API, fetch: async () => new Response(body) });
  const stream = await transport.reconnectToStream({ chatId: 'x' });
  const errors = [];
  let message;
  for await (const next of readUIMessageStream({ stream, onError: (error) => errors.push(error.message) })) {
    message = next;
  }
  return { message: message && JSON.parse(JSON.stringify(message)), errors };
};
