import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { type Entry, Penstock, PenstockError } from "penstock";
import { useStream } from "penstock/react";

const penstock = new Penstock({ transport: "auto", token: async (refresh) => (refresh ? "new" : "old") });

export function Chat() {
  const [model, setModel] = useState("demo");
  const { text, phase, error, follow, stop } = useStream();
  const kind: string = error instanceof PenstockError ? error.code : "";
  const show = (entry: Entry): string => {
    if (entry.type === "text") return entry.delta;
    if (entry.type === "end") return entry.status;
    return entry.type;
  };
  return (
    <main>
      <input value={model} onChange={(event) => setModel(event.target.value)} />
      <button onClick={() => follow(penstock.start({ model, messages: [{ role: "user", content: "Hello" }] }))}>Ask</button>
      <button onClick={() => void stop()}>Stop</button>
      <p data-phase={phase}>{text}{kind}{show({ n: 1, type: "text", delta: "" })}</p>
    </main>
  );
}

createRoot(document.getElementById("root")!).render(<StrictMode><Chat /></StrictMode>);
