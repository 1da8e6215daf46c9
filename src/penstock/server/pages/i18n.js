// @ts-check
// Every word of the page, in English and Chinese, and how numbers and times are written.
// A value with `one` and `other` is chosen by its `count`.

export const LANGUAGES = /** @type {Record<string, string>} */ ({ en: "English", zh: "中文" });

const en = {
  // the frame
  app: "Penstock",
  new_chat: "New chat",
  conversations: "Conversations",
  open_drawer: "Conversations",
  close: "Close",
  cancel: "Cancel",
  save: "Save",
  delete: "Delete",
  rename: "Rename",
  title: "Title",
  untitled: "Untitled",
  more: "More",
  more_about: "More about “{title}”",
  today: "Today",
  yesterday: "Yesterday",
  this_week: "The last seven days",
  earlier: "Earlier",
  no_conversations: "What you ask is kept here, in this browser only.",
  no_such_conversation: "This browser has no such conversation.",
  export_markdown: "Export as Markdown",
  export_json: "Export as JSON",
  delete_title: "Delete this conversation?",
  delete_about: "“{title}” is removed from this browser, with all its versions. An answer that is still being written is stopped.",
  not_stopped: "The gateway could not be told to stop the answer.",
  language: "Language",
  theme: "Appearance",
  theme_system: "As the system",
  theme_light: "Light",
  theme_dark: "Dark",
  api_docs: "API",
  keys: "Keyboard",
  forget_key: "Forget the API key",
  skip: "To the message",
  thread: "Conversation",

  // the empty page
  hello: "What would you like to know?",
  hello_about: "Every answer here is a durable stream. Reload the page, open it in a second tab, lose the connection: it goes on where it was.",
  suggestion_1: "What can you do?",
  suggestion_2: "Show me how to call you from code",
  suggestion_3: "Give me a short tour of this gateway",
  suggestion_4: "用中文介绍一下你自己",

  // the composer
  message: "Message",
  message_example: "Ask anything",
  send: "Send",
  stop: "Stop the answer",
  model: "Model",
  settings: "Settings",
  lab: "Lab",
  jump: "Jump to the newest",
  disclaimer: "Enter sends · Shift+Enter begins a line",

  // questions and answers
  you: "You",
  edit: "Edit",
  edit_hint: "Sending it again begins a new branch. What followed stays, as a version that you can go back to.",
  copy_question: "Copy the question",
  copy_answer: "Copy as Markdown",
  copy_code: "Copy the code",
  copied: "Copied.",
  not_copied: "The browser does not allow copying.",
  regenerate: "Answer again",
  version_before: "Version before",
  version_after: "Version after",
  version_of: "Version {index} of {count}",
  copy_link: "Copy link to this answer",
  copy_id: "Copy stream id",
  copy_curl: "Copy as curl",
  copy_follow: "Copy curl that follows it",
  image: "Image",
  sources: "Sources",
  more_choices: "The provider gave further choices, which are not shown.",
  reasoning: "Reasoning",
  reasoning_now: "Reasoning …",
  reasoned_for: "Reasoned for {seconds}",
  tool_calling: "Calls",
  tool_called: "Called",
  results_wanted: "The model called tools and waits for what they say. Nothing is run here: give the results yourself.",
  result_of: "Result of",
  result_example: "12 °C, light rain",
  send_results: "Send the results",
  please_continue: "Please go on exactly where you stopped.",

  // while it is written
  asking: "Asking …",
  thinking: "Waiting for the first word …",
  silent_for: "Silent for {seconds}",
  stopping: "Stopping …",
  stopping_unreachable: "Stopping … The gateway cannot be reached; press Stop again to give up waiting.",
  reconnecting: "Reconnecting …",
  reconnecting_in: "Reconnecting in {count} s, attempt {attempt}.",
  retry_now: "Try now",
  lost_network: "The gateway cannot be reached.",
  lost_ended: "The connection was lost.",
  lost_silent: "Nothing was heard for too long.",
  lost_busy: "The gateway is busy.",
  lost_proxy: "Something before the gateway does not answer as it should.",
  lost_key: "Another key is tried.",
  cut_waiting: "Connection cut. The answer goes on without us; back in {count} s.",
  unseen: "Resting while nobody looks.",
  key_waiting: "The gateway wants an API key.",
  not_followed: "This answer was never asked for.",

  // how it ended
  complete: "Complete",
  ended_length: "Cut at the length limit",
  ended_length_about: "The model reached its limit of tokens. Raise it in the settings, or ask it to go on.",
  ended_filter: "Withheld by the content filter",
  ended_filter_about: "The provider stopped this answer. Say it in another way, or ask another model.",
  ended_empty: "An empty answer",
  ended_empty_about: "The model finished without a word.",
  ended_cancelled: "Stopped",
  ended_not_confirmed: "The gateway could not be told, so the answer may still go on there.",
  ended_interrupted: "Interrupted",
  ended_interrupted_about: "The gateway could not go on. What came before is whole.",
  ended_expired: "Its time ran out",
  ended_refused: "Not accepted",
  ended_gone: "No longer there",
  ended_gone_about: "The gateway does not have this answer any more, or it belongs to somebody else.",
  ended_unreadable: "Cannot be read on",
  ended_failed: "Failed",
  fault_client: "the request is at fault",
  fault_gateway: "the gateway is at fault",
  fault_upstream: "the provider is at fault",
  advice_retry: "Another try may well succeed.",
  advice_restarted: "What came before is whole, and stays.",
  advice_storage: "Another try may succeed once the gateway's disk is well.",
  advice_busy: "Too much is going on at the moment. Try again shortly.",
  advice_rate: "Wait a moment, then try again.",
  advice_quota: "The gateway's account at the provider has run out. Whoever runs it must act.",
  advice_model: "Choose another model below, then try again.",
  advice_key: "Give a key that this gateway knows, then try again.",
  advice_long: "It is more than the model takes. Shorten it, or begin a new chat.",
  advice_filter: "Say it in another way, or ask another model.",
  advice_unreachable: "Whoever runs the gateway should look at the provider's address.",
  advice_cut: "What came before stays. Another try may well succeed.",
  advice_timeout: "Another try may succeed.",
  advice_log_lost: "A part of this answer was lost before it was safely stored.",
  advice_left: "Nobody read it for a long time.",
  try_again: "Try again",
  again_in: "Try again ({count} s)",
  keep_going: "Keep it and go on",

  // figures
  first_after: "first chunk after {seconds}",
  first_after_gateway: "first output after {seconds} (gateway's clock)",
  tokens_rate: "{rate} tokens/s",
  tokens_rate_estimated: "about {rate} tokens/s",
  chunks_rate: "{rate} chunks/s",
  chunks: { one: "{count} chunk", other: "{count} chunks" },
  tokens: "{input} tokens in, {output} out",
  tokens_estimated: "about {input} tokens in, {output} out",
  total_gateway: "{seconds} (gateway's clock)",
  strip_chunks: { one: "{count} chunk in {seconds}.", other: "{count} chunks in {seconds}." },
  strip_longest: "The longest silence between two was {seconds}.",
  strip_cuts: { one: "The connection was lost once.", other: "The connection was lost {count} times." },
  strip_caught: { one: "{count} chunk had waited and came at once.", other: "{count} chunks had waited and came at once." },

  // the lab
  cut: "Cut the connection",
  misbehave: "Misbehave",
  misbehave_please: "Show me how this goes wrong.",
  legend: "What the strip shows",
  legend_text: "text",
  legend_reasoning: "reasoning",
  legend_tool: "tool call",
  legend_cut: "connection lost",
  legend_caught: "caught up",
  legend_heartbeat: "heartbeat",

  // models
  models: "Models",
  model_choose: "Choose a model",
  model_search: "Search, or type a name",
  model_other: "Another name",
  model_typed: "Not listed: ask for it all the same",
  models_failed: "The list could not be loaded. A name can be typed.",
  models_more: "{count} more: type to narrow them down.",
  group_demo: "Demo",
  group_misbehaving: "Demo: misbehaving",

  // settings
  settings_title: "Settings",
  presets: "Presets",
  preset_defaults: "Provider's defaults",
  preset_balanced: "Balanced",
  preset_precise: "Precise",
  preset_creative: "Creative",
  preset_name: "Name of the preset",
  preset_needs_name: "Give it a name first.",
  presets_full: "There are too many presets. Delete one first.",
  save_as_new: "Save as new",
  save_changes: "Save changes",
  provider_default: "default",
  model_default: "model's own",
  set_temperature: "Temperature",
  set_top_p: "Top p",
  set_max_tokens: "Most tokens",
  set_seed: "Seed",
  set_system: "System prompt",
  set_stop: "Stop sequences",
  stop_hint: "One on each line.",
  script_settings: "How the demo models play",
  script_hint: "For the embedded models only; real ones are never sent these.",
  set_tokens_per_second: "Tokens per second",
  set_first_token_delay: "Seconds to the first token",
  set_tokens: "Length in tokens",

  // the key
  key_title: "API key",
  key: "Key",
  key_wanted: "This gateway wants an API key.",
  key_wrong: "This gateway does not know that key. Give another one.",
  key_remember: "Remember it on this device",
  key_where: "Without this, it is forgotten when the tab is closed. It is sent to this gateway only, in a header, never in an address.",
  key_use: "Use this key",
  key_forgotten: "The key is forgotten.",

  // keys
  keys_send: "send the message",
  keys_line: "begin a new line",
  keys_stop: "stop the answer",
  keys_edit: "in an empty message: edit the last question",
  keys_new: "new chat",
  keys_model: "choose a model",
  keys_focus: "to the message",
  keys_help: "this list",

  // a shared answer
  shared_answer: "An answer",
  read_only: "You are reading one answer, live, by its link.",
  own_chat: "Begin a chat of your own",

  // told to screen readers
  announce_begun: "The answer begins.",
  announce_ended: "The answer is complete:",

  // storage
  storage_full: "This browser's storage is full. What comes now is kept until this tab is closed: export or delete conversations.",
  storage_none: "This browser keeps nothing for this page. Conversations last until this tab is closed.",
  storage_dropped: "There were too many conversations; the oldest was removed.",
};

/** @type {typeof en} */
const zh = {
  app: "Penstock",
  new_chat: "新对话",
  conversations: "对话",
  open_drawer: "对话列表",
  close: "关闭",
  cancel: "取消",
  save: "保存",
  delete: "删除",
  rename: "重命名",
  title: "标题",
  untitled: "无标题",
  more: "更多",
  more_about: "“{title}”的更多操作",
  today: "今天",
  yesterday: "昨天",
  this_week: "最近七天",
  earlier: "更早",
  no_conversations: "您的对话保存在这里，只存在于本浏览器。",
  no_such_conversation: "本浏览器中没有这个对话。",
  export_markdown: "导出为 Markdown",
  export_json: "导出为 JSON",
  delete_title: "删除这个对话？",
  delete_about: "“{title}”及其所有版本将从本浏览器中删除。仍在生成的回答会被停止。",
  not_stopped: "无法通知网关停止回答。",
  language: "语言",
  theme: "外观",
  theme_system: "跟随系统",
  theme_light: "浅色",
  theme_dark: "深色",
  api_docs: "接口",
  keys: "键盘",
  forget_key: "忘记 API 密钥",
  skip: "转到输入框",
  thread: "对话",

  hello: "想了解什么？",
  hello_about: "这里的每个回答都是一条持久的流。刷新页面、在另一个标签页打开、或者断网：它都会从原处继续。",
  suggestion_1: "你能做什么？",
  suggestion_2: "Show me how to call you from code",
  suggestion_3: "简单介绍一下这个网关",
  suggestion_4: "What can you do?",

  message: "消息",
  message_example: "随便问点什么",
  send: "发送",
  stop: "停止回答",
  model: "模型",
  settings: "设置",
  lab: "实验室",
  jump: "跳到最新",
  disclaimer: "Enter 发送 · Shift+Enter 换行",

  you: "您",
  edit: "编辑",
  edit_hint: "重新发送会开始一个新的分支。原来的内容会作为一个版本保留，可以随时返回。",
  copy_question: "复制问题",
  copy_answer: "复制为 Markdown",
  copy_code: "复制代码",
  copied: "已复制。",
  not_copied: "浏览器不允许复制。",
  regenerate: "重新回答",
  version_before: "上一个版本",
  version_after: "下一个版本",
  version_of: "第 {index} 个版本，共 {count} 个",
  copy_link: "复制此回答的链接",
  copy_id: "复制流的编号",
  copy_curl: "复制为 curl 命令",
  copy_follow: "复制跟读此回答的 curl 命令",
  image: "图片",
  sources: "来源",
  more_choices: "提供商还给出了其他候选回答，此处未显示。",
  reasoning: "推理过程",
  reasoning_now: "正在推理……",
  reasoned_for: "推理用时 {seconds}",
  tool_calling: "正在调用",
  tool_called: "调用了",
  results_wanted: "模型调用了工具，正在等待结果。这里不会运行任何工具，请自行填写结果。",
  result_of: "结果：",
  result_example: "12 °C，小雨",
  send_results: "发送结果",
  please_continue: "请从刚才停下的地方继续。",

  asking: "正在请求……",
  thinking: "等待第一个词……",
  silent_for: "已沉默 {seconds}",
  stopping: "正在停止……",
  stopping_unreachable: "正在停止……无法连接网关；再按一次“停止”即可不再等待。",
  reconnecting: "正在重新连接……",
  reconnecting_in: "{count} 秒后重新连接，第 {attempt} 次尝试。",
  retry_now: "立即重试",
  lost_network: "无法连接网关。",
  lost_ended: "连接已断开。",
  lost_silent: "太久没有收到任何数据。",
  lost_busy: "网关正忙。",
  lost_proxy: "网关前面的某个环节应答异常。",
  lost_key: "正在尝试另一个密钥。",
  cut_waiting: "连接已切断。回答仍在继续；{count} 秒后回来。",
  unseen: "页面不可见，暂停接收。",
  key_waiting: "网关需要 API 密钥。",
  not_followed: "这个回答从未发出请求。",

  complete: "完成",
  ended_length: "达到长度上限",
  ended_length_about: "模型达到了词元上限。可以在设置中调高，或让它继续。",
  ended_filter: "被内容过滤器拦下",
  ended_filter_about: "提供商中止了这个回答。请换个说法，或换一个模型。",
  ended_empty: "空回答",
  ended_empty_about: "模型一个字也没说就结束了。",
  ended_cancelled: "已停止",
  ended_not_confirmed: "无法通知网关，回答可能仍在那里继续。",
  ended_interrupted: "被中断",
  ended_interrupted_about: "网关无法继续。此前的内容是完整的。",
  ended_expired: "已超时",
  ended_refused: "未被接受",
  ended_gone: "已不存在",
  ended_gone_about: "网关已经没有这个回答，或者它属于别人。",
  ended_unreadable: "无法继续读取",
  ended_failed: "失败",
  fault_client: "请求有误",
  fault_gateway: "网关的问题",
  fault_upstream: "提供商的问题",
  advice_retry: "再试一次很可能成功。",
  advice_restarted: "此前的内容是完整的，会保留下来。",
  advice_storage: "等网关的存储恢复后再试。",
  advice_busy: "当前负载过高，请稍后再试。",
  advice_rate: "请稍等片刻再试。",
  advice_quota: "网关在提供商处的额度已用完，需要管理员处理。",
  advice_model: "请在下方选择其他模型后重试。",
  advice_key: "请提供网关认可的密钥后重试。",
  advice_long: "内容超过了模型的上限。请缩短，或开始新的对话。",
  advice_filter: "请换个说法，或换一个模型。",
  advice_unreachable: "请网关管理员检查提供商的地址。",
  advice_cut: "此前的内容会保留，再试一次很可能成功。",
  advice_timeout: "再试一次也许会成功。",
  advice_log_lost: "这个回答有一部分在安全保存之前丢失了。",
  advice_left: "已经很久没有人阅读它。",
  try_again: "重试",
  again_in: "重试（{count} 秒）",
  keep_going: "保留并继续",

  first_after: "首个数据块 {seconds}",
  first_after_gateway: "首次输出 {seconds}（网关计时）",
  tokens_rate: "{rate} 词元/秒",
  tokens_rate_estimated: "约 {rate} 词元/秒",
  chunks_rate: "{rate} 块/秒",
  chunks: { one: "{count} 块", other: "{count} 块" },
  tokens: "输入 {input} 词元，输出 {output}",
  tokens_estimated: "约输入 {input} 词元，输出 {output}",
  total_gateway: "{seconds}（网关计时）",
  strip_chunks: { one: "{seconds} 内收到 {count} 块。", other: "{seconds} 内收到 {count} 块。" },
  strip_longest: "两块之间最长间隔 {seconds}。",
  strip_cuts: { one: "连接断开过 1 次。", other: "连接断开过 {count} 次。" },
  strip_caught: { one: "{count} 块在断线期间到达，恢复后一次收到。", other: "{count} 块在断线期间到达，恢复后一次收到。" },

  cut: "切断连接",
  misbehave: "捣乱",
  misbehave_please: "让我看看出错时是什么样子。",
  legend: "时间轴图例",
  legend_text: "正文",
  legend_reasoning: "推理",
  legend_tool: "工具调用",
  legend_cut: "连接断开",
  legend_caught: "补收",
  legend_heartbeat: "心跳",

  models: "模型",
  model_choose: "选择模型",
  model_search: "搜索，或输入名称",
  model_other: "其他名称",
  model_typed: "未列出，仍然使用",
  models_failed: "模型列表加载失败，可以直接输入名称。",
  models_more: "还有 {count} 个，请输入文字缩小范围。",
  group_demo: "演示",
  group_misbehaving: "演示：异常行为",

  settings_title: "设置",
  presets: "预设",
  preset_defaults: "提供商默认",
  preset_balanced: "均衡",
  preset_precise: "精确",
  preset_creative: "创意",
  preset_name: "预设名称",
  preset_needs_name: "请先起个名字。",
  presets_full: "预设太多了，请先删除一个。",
  save_as_new: "另存为新预设",
  save_changes: "保存修改",
  provider_default: "默认",
  model_default: "模型自带",
  set_temperature: "温度",
  set_top_p: "Top p",
  set_max_tokens: "最多词元数",
  set_seed: "随机种子",
  set_system: "系统提示词",
  set_stop: "停止序列",
  stop_hint: "每行一个。",
  script_settings: "演示模型的播放方式",
  script_hint: "只用于内置模型，不会发给真实模型。",
  set_tokens_per_second: "每秒词元数",
  set_first_token_delay: "首个词元前的秒数",
  set_tokens: "长度（词元）",

  key_title: "API 密钥",
  key: "密钥",
  key_wanted: "这个网关需要 API 密钥。",
  key_wrong: "网关不认识这个密钥，请换一个。",
  key_remember: "在此设备上记住",
  key_where: "不勾选时，关闭标签页后即忘记。密钥只通过请求头发送给这个网关，绝不出现在网址中。",
  key_use: "使用此密钥",
  key_forgotten: "密钥已忘记。",

  keys_send: "发送消息",
  keys_line: "换行",
  keys_stop: "停止回答",
  keys_edit: "输入框为空时：编辑上一个问题",
  keys_new: "新对话",
  keys_model: "选择模型",
  keys_focus: "转到输入框",
  keys_help: "显示此列表",

  shared_answer: "一个回答",
  read_only: "您正在通过链接实时阅读一个回答。",
  own_chat: "开始自己的对话",

  announce_begun: "回答开始。",
  announce_ended: "回答完成：",

  storage_full: "浏览器存储空间已满。新的内容只保留到关闭此标签页为止：请导出或删除一些对话。",
  storage_none: "浏览器没有为此页面保存数据。对话只保留到关闭此标签页为止。",
  storage_dropped: "对话太多，最早的一个已被删除。",
};

export const WORDS = { en, zh };

/** @typedef {keyof typeof en} WordKey */

/** What is chosen, else what the browser prefers, else English. @param {string} chosen */
export function choose(chosen, preferred = navigator.languages ?? []) {
  if (chosen in WORDS) return chosen;
  const known = preferred.map((one) => one.toLowerCase().split("-")[0]).find((one) => one in WORDS);
  return known ?? "en";
}

/** @param {string} chosen "" for what the browser prefers */
export function setLanguage(chosen) {
  document.documentElement.lang = choose(chosen);
}

/** The language that the page is in. */
export function language() {
  const now = document.documentElement.lang;
  return now in WORDS ? now : "en";
}

/** The words for `name`, with `values` in their places. @param {WordKey} name @param {Record<string, string | number>} [values] */
export function t(name, values = {}) {
  const words = /** @type {Record<string, any>} */ (WORDS[/** @type {"en" | "zh"} */ (language())])[name];
  if (words === undefined) return name;
  const text = typeof words === "string" ? words : Number(values.count) === 1 ? words.one : words.other;
  return text.replace(/\{(\w+)\}/g, (/** @type {string} */ whole, /** @type {string} */ key) => {
    const value = values[key];
    return value === undefined ? whole : typeof value === "number" ? number(value) : value;
  });
}

/** Put words where the document says which. @param {ParentNode} root */
export function translate(root) {
  for (const element of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-t], [data-t-label], [data-t-placeholder]"))) {
    const { t: text, tLabel, tPlaceholder } = element.dataset;
    if (text) element.textContent = t(/** @type {WordKey} */ (text));
    if (tLabel) {
      element.setAttribute("aria-label", t(/** @type {WordKey} */ (tLabel)));
      if (element.matches("button")) element.title = t(/** @type {WordKey} */ (tLabel));
    }
    if (tPlaceholder) element.setAttribute("placeholder", t(/** @type {WordKey} */ (tPlaceholder)));
  }
}

/** @param {number} value @param {number} [digits] */
export function number(value, digits = 0) {
  return value.toLocaleString(language(), { maximumFractionDigits: digits });
}

/** Milliseconds as seconds. @param {number} milliseconds @param {number} [digits] */
export function seconds(milliseconds, digits = 1) {
  const value = (milliseconds / 1000).toLocaleString(language(), { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return language() === "zh" ? `${value} 秒` : `${value} s`;
}

/** Milliseconds as minutes and seconds. @param {number} milliseconds */
export function duration(milliseconds) {
  if (milliseconds < 60_000) return seconds(milliseconds);
  const whole = Math.round(milliseconds / 1000);
  const [minutes, rest] = [Math.floor(whole / 60), whole % 60];
  return language() === "zh" ? `${minutes} 分 ${rest} 秒` : `${minutes} min ${rest} s`;
}
