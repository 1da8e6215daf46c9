// @ts-check
// What is looked at, as it stands in the address, so that a reload, a bookmark and a colleague see the
// same: `#/?minutes=15&q=model:chat&sort=silent` is the overview, `#/s/<stream>` one stream's own page.

export const MINUTES = [2, 15, 60];
export const ORDERS = ["age", "newest", "silent", "lag", "readers", "entries", "attempts"];

/** As the gateway has them. */
export const MAX_QUESTION = 200;
const MAX_WORDS = 8;
const WORD = /(?:([a-z]+):)?(?:"([^"]*)"|(\S+))/g;

/** @typedef {{stream: string, minutes: number, q: string, sort: string}} View */

/** Read an address. @param {string} hash @returns {View} */
export function parse(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [kind = "", name = ""] = path.split("/");
  const asked = new URLSearchParams(search);
  const minutes = Number(asked.get("minutes"));
  const sort = asked.get("sort") ?? "";
  return {
    stream: kind === "s" && /^[\w.-]{1,64}$/.test(name) ? name : "",
    minutes: MINUTES.includes(minutes) ? minutes : MINUTES[0],
    q: (asked.get("q") ?? "").slice(0, MAX_QUESTION),
    sort: ORDERS.includes(sort) ? sort : ORDERS[0],
  };
}

/** The address of an overview. @param {{minutes?: number, q?: string, sort?: string}} view */
export function address({ minutes = MINUTES[0], q = "", sort = ORDERS[0] }) {
  const asked = new URLSearchParams();
  if (minutes !== MINUTES[0]) asked.set("minutes", String(minutes));
  if (q) asked.set("q", q);
  if (sort !== ORDERS[0]) asked.set("sort", sort);
  return asked.size ? `#/?${asked}` : "#/";
}

/** What asks for streams with `value` in one field. @param {string} name @param {string} value */
export function word(name, value) {
  return `${name}:${/\s/.test(value) ? `"${value}"` : value}`;
}

/** The words of a question, as many as are looked for. @param {string} q */
function words(q) {
  return [...q.matchAll(WORD)].slice(0, MAX_WORDS);
}

/** What the feed is asked for. @param {View} view */
export function question(view) {
  const asked = new URLSearchParams();
  const q = words(view.q).map(([whole]) => whole).join(" ");
  if (q) asked.set("q", q);
  if (view.sort !== ORDERS[0]) asked.set("sort", view.sort);
  return String(asked);
}

/** Whether all words of `q` are in these fields, as the gateway looks for them. @param {string} q @param {Record<string, any>} fields */
export function fits(q, fields) {
  return words(q.toLowerCase()).every(([whole, name, quoted, bare]) => {
    const within = (/** @type {any} */ field, /** @type {string} */ value) => String(field ?? "").toLowerCase().includes(value);
    if (name && name in fields) return within(fields[name], quoted ?? bare);
    return Object.values(fields).some((field) => within(field, quoted ?? (name ? whole : bare)));
  });
}
