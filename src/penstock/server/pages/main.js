// @ts-check
// The page put together: what there is, what is shown for an address, what each button does.
// `#/` is a new conversation, `#/c/<id>` one of this browser's, `#/s/<stream>` any stream, read-only.

import { Api, Key } from "./api.js";
import { Composer } from "./composer.js";
import { askForKey, askForText, confirmed, frame, notice, showKeys } from "./dialogs.js";
import { byId, copyText, download, h, icon, openMenu } from "./dom.js";
import { fileNameOf, jsonOf, markdownOf } from "./export.js";
import { language, LANGUAGES, setLanguage, t, translate } from "./i18n.js";
import { CUT_FOR, Lab } from "./lab.js";
import { Library, pathOf } from "./library.js";
import { ModelPicker, Models } from "./models.js";
import { Drafts, Preferences } from "./preferences.js";
import { PresetsDialog } from "./presets.js";
import { curlOf, requestOf } from "./request.js";
import { Sidebar } from "./sidebar.js";
import { Thread } from "./thread.js";

const preferences = new Preferences();
setLanguage(preferences.get("language"));
const library = await Library.open();
const key = new Key();

/** One dialog, however many ask. @type {Promise<boolean> | null} */
let asking = null;
const api = new Api(key, (refusal) => {
  asking ??= (async () => {
    const why = refusal.code === "invalid_api_key" ? t("key_wrong") : t("key_wanted");
    const given = await askForKey(why);
    if (given) key.set(given.key, given.remember);
    asking = null;
    if (given) void models.refresh();
    drawKey();
    return Boolean(given);
  })();
  return asking;
});
const models = new Models(api);

const announcements = byId("announcements");
const thread = new Thread({
  scroller: byId("scroller"),
  column: byId("column"),
  jump: byId("jump"),
  empty: byId("empty"),
  api,
  library,
  preferences,
  announce: (text) => (announcements.textContent = text),
  menu: (_anchor, node, path) => answerMenu(node, path),
});
const composer = new Composer(byId("composer"), new Drafts());
const sidebar = new Sidebar(byId("conversations"), library);
const lab = new Lab(models);

/** @type {ModelPicker} */
let picker;
/** @type {PresetsDialog} */
let presets;

/** How the next answer is asked for. */
function how() {
  return { model: model(), settings: preferences.get("settings"), script: preferences.get("script") };
}

function model() {
  return preferences.get("model") || models.first || "demo";
}

// --- words and looks --------------------------------------------------------------------------------

/** Everything that is drawn once, in the language of now. */
function drawFixed() {
  translate(document);
  picker = new ModelPicker(frame("model-dialog", t("model_choose")), models, (name) => preferences.set({ model: name }));
  presets = new PresetsDialog(frame("preset-dialog", t("settings_title")), preferences);
  byId("suggestions").replaceChildren(...[1, 2, 3, 4].map((index) =>
    h("button", { type: "button", class: "suggestion", onclick: () => void send(t(/** @type {any} */ (`suggestion_${index}`))) },
      h("span", { text: t(/** @type {any} */ (`suggestion_${index}`)) }))));
  drawKey();
  drawChips();
  lab.draw();
  sidebar.draw();
}

function drawChips() {
  byId("model-name").textContent = model();
  byId("preset-name").textContent = presets?.name ?? "";
}

function drawKey() {
  byId("forget-key").hidden = !key.value;
}

function drawTitle() {
  const title = library.get(thread.conversation)?.title ?? "";
  byId("title").textContent = thread.readOnly ? t("shared_answer") : title || t("new_chat");
  document.title = title ? `${title} · Penstock` : "Penstock";
}

function drawBusy() {
  composer.busy = thread.busy;
  lab.reading = thread.busy && thread.run?.state.phase === "reading";
  byId("composer").hidden = thread.readOnly;
  byId("read-only").hidden = !thread.readOnly;
  document.body.classList.toggle("read-only", thread.readOnly);
}

function drawTheme() {
  const theme = preferences.get("theme");
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

// --- asking -----------------------------------------------------------------------------------------

/** @param {string} text @param {string} [other] another model, for once */
async function send(text, other = "") {
  if (thread.busy || thread.readOnly) return;
  const fresh = !thread.conversation;
  const asked = thread.ask(text, other ? { ...how(), model: other } : how());
  if (fresh) {
    await asked;
    composer.rename(thread.conversation);
    history.replaceState(null, "", `#/c/${thread.conversation}`);
    sidebar.select(thread.conversation);
  }
  drawTitle();
  await asked;
  if (matchMedia("(pointer: fine)").matches) composer.focus();
}

/** @param {import("./library.js").AnswerNode} node @param {import("./library.js").Node[]} path */
function answerMenu(node, path) {
  const copy = (/** @type {string} */ text) => async () => notice((await copyText(text)) ? t("copied") : t("not_copied"));
  const { stream } = node.answer;
  const items = [
    { label: t("copy_link"), shape: "link", run: copy(new URL(`#/s/${stream}`, location.href).href) },
    { label: t("copy_id"), shape: "copy", run: copy(stream) },
  ];
  if (!thread.readOnly) {
    const body = requestOf(path, node.model, node.settings ?? {}, preferences.get("script"));
    items.push({ label: t("copy_curl"), shape: "copy", run: copy(curlOf(api.url("v1/streams"), body, Boolean(key.value))) });
  }
  const follow = `curl -N '${api.url(`v1/streams/${stream}/events`)}'${key.value ? ' -H "Authorization: Bearer $PENSTOCK_KEY"' : ""}`;
  items.push({ label: t("copy_follow"), shape: "copy", run: copy(follow) });
  return items;
}

// --- where we are -----------------------------------------------------------------------------------

async function route() {
  const [, kind = "", name = ""] = location.hash.split("/");
  byId("drawer-toggle").setAttribute("aria-expanded", "false");
  document.body.classList.remove("drawer-open");
  if (kind === "s" && /^[\w.-]{1,64}$/.test(name)) {
    await thread.openStream(name);
  } else if (kind === "c" && name && name !== thread.conversation) {
    if (!library.get(name)) {
      notice(t("no_such_conversation"));
      location.replace("#/");
      return;
    }
    await thread.open(name);
  } else if (kind !== "c") await thread.open("");
  sidebar.select(thread.conversation);
  composer.show(thread.conversation);
  drawTitle();
  drawBusy();
  if (matchMedia("(pointer: fine)").matches && !document.querySelector("dialog[open]")) composer.focus();
}

function newChat() {
  if (location.hash === "#/" || location.hash === "") void route();
  else location.hash = "#/";
}

// --- wiring -----------------------------------------------------------------------------------------

composer.addEventListener("send", (/** @type {any} */ event) => void send(event.detail));
composer.addEventListener("stop", () => thread.stop());
composer.addEventListener("edit", () => thread.editLast());
thread.addEventListener("change", () => drawBusy());
thread.addEventListener("again", (/** @type {any} */ event) => void thread.again(event.detail.id, how()));
thread.addEventListener("resend", (/** @type {any} */ event) => void thread.askAgain(event.detail.id, event.detail.text, how()));
thread.addEventListener("proceed", () => void send(t("please_continue")));
thread.addEventListener("results", (/** @type {any} */ event) => void thread.giveResults(event.detail.results, how()));
models.addEventListener("change", () => drawChips());
library.addEventListener("list", () => drawTitle());
const complain = () => notice(t(/** @type {any} */ (`storage_${library.trouble}`)), { stay: true });
library.addEventListener("trouble", complain);
preferences.addEventListener("change", (/** @type {any} */ event) => {
  if (event.detail === "theme") drawTheme();
  else if (event.detail === "language") {
    setLanguage(preferences.get("language"));
    drawFixed();
    void (thread.readOnly ? thread.openStream(/** @type {any} */ ([...thread.nodes.values()][0]).answer.stream) : thread.open(thread.conversation));
    composer.show(thread.conversation);
    drawTitle();
  } else if (event.detail === "lab") {
    lab.show(preferences.get("lab"));
    byId("lab-toggle").setAttribute("aria-expanded", String(preferences.get("lab")));
    thread.toEnd();
  } else drawChips();
});

lab.addEventListener("cut", () => thread.cut(CUT_FOR));
lab.addEventListener("misbehave", (/** @type {any} */ event) => {
  const text = composer.text.trim() || t("misbehave_please");
  composer.text = "";
  void send(text, event.detail);
});

sidebar.addEventListener("rename", async (/** @type {any} */ { detail: id }) => {
  const title = await askForText(t("rename"), t("title"), library.get(id)?.title ?? "");
  if (title) await library.update(id, (conversation) => (conversation.title = title));
});
sidebar.addEventListener("remove", async (/** @type {any} */ { detail: id }) => {
  const title = library.get(id)?.title ?? "";
  if (!(await confirmed(t("delete_title"), t("delete_about", { title }), t("delete")))) return;
  const nodes = await library.nodes(id);
  if (id === thread.conversation) newChat();
  await library.remove(id);
  for (const node of nodes.values()) {
    if (node.role !== "answer" || node.answer.end || !node.answer.stream) continue;
    api.fetch(`v1/streams/${node.answer.stream}/cancel`, { method: "POST" }).catch(() => notice(t("not_stopped")));
  }
});
sidebar.addEventListener("markdown", async (/** @type {any} */ { detail: id }) => {
  const conversation = library.get(id);
  if (!conversation) return;
  const path = pathOf(await library.nodes(id), conversation.chosen);
  download(`${fileNameOf(conversation.title)}.md`, "text/markdown", markdownOf(conversation.title, path));
});
sidebar.addEventListener("json", async (/** @type {any} */ { detail: id }) => {
  const conversation = library.get(id);
  if (!conversation) return;
  const nodes = await library.nodes(id);
  download(`${fileNameOf(conversation.title)}.json`, "application/json", jsonOf(conversation, [...nodes.values()]));
});

byId("model-button").addEventListener("click", () => picker.open(model()));
byId("preset-button").addEventListener("click", () => presets.open());
byId("lab-toggle").addEventListener("click", () => preferences.set({ lab: !preferences.get("lab") }));
byId("help-button").addEventListener("click", () => showKeys());
byId("forget-key").addEventListener("click", () => {
  key.forget();
  drawKey();
  notice(t("key_forgotten"));
});
for (const id of ["new-chat", "new-chat-top"]) byId(id).addEventListener("click", () => newChat());
byId("own-chat").addEventListener("click", () => newChat());
byId("language-button").addEventListener("click", (/** @type {any} */ event) => openMenu(event.currentTarget, Object.entries(LANGUAGES).map(([code, name]) => ({
  label: name, shape: code === language() ? "check" : undefined, run: () => preferences.set({ language: code }),
}))));
byId("theme-button").addEventListener("click", (/** @type {any} */ event) => openMenu(event.currentTarget, ["", "light", "dark"].map((theme) => ({
  label: t(/** @type {any} */ (`theme_${theme || "system"}`)), shape: theme === preferences.get("theme") ? "check" : undefined, run: () => preferences.set({ theme }),
}))));

const toggle = byId("drawer-toggle");
const closeDrawer = () => {
  document.body.classList.remove("drawer-open");
  toggle.setAttribute("aria-expanded", "false");
};
toggle.addEventListener("click", () => {
  const open = document.body.classList.toggle("drawer-open");
  toggle.setAttribute("aria-expanded", String(open));
  if (open) byId("new-chat").focus();
});
byId("drawer-shade").addEventListener("click", closeDrawer);

addEventListener("keydown", (event) => {
  if (event.isComposing || event.keyCode === 229) return;
  const typing = event.target instanceof HTMLElement && event.target.matches("input, textarea, select, [contenteditable]");
  const dialog = document.querySelector("dialog[open]");
  const command = event.ctrlKey || event.metaKey;
  if (event.key === "Escape" && !dialog && !document.querySelector(".menu:popover-open")) {
    if (document.body.classList.contains("drawer-open")) {
      closeDrawer();
      toggle.focus();
    } else if (thread.busy) thread.stop();
  } else if (dialog) {
    // A dialog has its own keys.
  } else if (command && event.key.toLowerCase() === "k") {
    event.preventDefault();
    newChat();
  } else if (command && event.key.toLowerCase() === "m") {
    event.preventDefault();
    picker.open(model());
  } else if (!typing && !command && event.key === "?") {
    event.preventDefault();
    showKeys();
  } else if (!typing && !command && event.key === "/") {
    event.preventDefault();
    composer.focus();
  }
});
addEventListener("hashchange", () => void route());

for (const element of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-icon]"))) {
  element.prepend(icon(/** @type {any} */ (element.dataset.icon)));
}
drawTheme();
drawFixed();
lab.show(preferences.get("lab"));
byId("lab-toggle").setAttribute("aria-expanded", String(preferences.get("lab")));
if (library.trouble) complain();
void models.refresh();
await route();
document.documentElement.dataset.ready = "true";
