// What the judges in JavaScript share; see tests/clients/judges/judging.py, whose twin this is. Run by
// tests/clients/test_judges.py, which starts the gateway (PENSTOCK_URL); prints what was seen.

import { Agent, fetch as own } from "undici";

const AT_ONCE = 16;
const PATIENCE = 30_000;
const BORNE = 3_000;
const HURRY = 500;
export const ENOUGH = 3;
export const QUESTION = "How is it?";
export const WEATHER = {
  name: "get_weather",
  description: "The weather of a city.",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

const QUESTIONS = {
  quiet: { bears: true },
  plain: {},
  calling: { calls: true },
  thinking: {},
  refusing: {},
  broken: {},
  cut: {},
  truncated: {},
  endless: { stops: true },
};

const hasty = new Agent({ bodyTimeout: BORNE });

class Question {
  constructor(url, model, { calls = false, bears = false, stops = false }) {
    Object.assign(this, { url, model, calls, stops });
    // The time-out that Node's own fetch has for silence, which no SDK changes, made short.
    this.fetch = bears ? (target, init) => own(target, { ...init, dispatcher: hasty }) : fetch;
  }

  /** Ends a call for a whole answer: nobody waits for ever. */
  get signal() {
    return AbortSignal.timeout(this.stops ? HURRY : PATIENCE);
  }
}

class Seen {
  text = "";
  reasoning = "";
  calls = [];
  reason = null;
  usage = null;
  error = null;
  pieces = 0;

  say(text) {
    if (text) {
      this.text += text;
      this.pieces += 1;
    }
    return this.pieces >= ENOUGH;
  }

  call(name, given) {
    this.calls.push([name, typeof given === "string" ? JSON.parse(given) : given]);
  }

  /** Note an error; the first that comes is the one that is shown. */
  fail(error) {
    if (this.error) return;
    const { message, code, status, statusCode, responseBody } = Object(error);
    const told = { kind: error?.name ?? typeof error, message: message ?? String(error), code, status };
    this.error = { ...told, statusCode, responseBody };
  }
}

async function judge(url, row, name, way, kind) {
  const seen = new Seen();
  const model = `upstream/${kind}:${row}:${name}`.replaceAll(" ", "-");
  try {
    await way(new Question(url, model, QUESTIONS[kind]), seen);
  } catch (error) {
    seen.fail(error);
  }
  return seen;
}

/** Let the judges ask all questions, side by side: first those that take their time. */
export async function main(rows) {
  const told = {};
  const asking = [];
  for (const kind of Object.keys(QUESTIONS)) {
    for (const [row, ways] of Object.entries(rows)) {
      for (const [name, way] of Object.entries(ways)) {
        const kinds = ((told[row] ??= {})[name] ??= {});
        asking.push(async () => (kinds[kind] = await judge(process.env.PENSTOCK_URL, row, name, way, kind)));
      }
    }
  }
  const patient = asking.filter((_, number) => number < asking.length / Object.keys(QUESTIONS).length);
  const others = asking.slice(patient.length);
  const line = async () => {
    while (others.length) await others.shift()();
  };
  await Promise.all([...patient.map((ask) => ask()), ...Array.from({ length: AT_ONCE }, line)]);
  process.stdout.write(JSON.stringify(told), () => process.exit(0));
}
