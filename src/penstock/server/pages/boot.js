// Sets theme and language before anything is drawn, so that nothing flashes. Not a module: it must
// run while the head is read. Everything else about preferences is in preferences.js.

(() => {
  try {
    const { theme, language } = JSON.parse(localStorage.getItem("penstock.preferences") ?? "{}");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    if (language) document.documentElement.lang = language;
  } catch {
    // No storage, or nonsense in it: the system's theme and the browser's language.
  }
})();
