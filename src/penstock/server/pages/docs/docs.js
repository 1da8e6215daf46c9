// The API's description, shown by Swagger UI.
//
// Requests that are tried go to where this page came from, whatever address a proxy in front made of it.

/* global SwaggerUIBundle */

const here = new URL("./", location.href).href.replace(/\/$/, "");

/** Follow the theme that was chosen on the chat page, else the system's. */
function paint() {
  let chosen;
  try {
    chosen = JSON.parse(localStorage.getItem("penstock.preferences") ?? "{}").theme;
  } catch {
    // No storage, or nonsense in it.
  }
  const dark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.classList.toggle("dark-mode", dark);
}

/** Show what went wrong instead of an empty page. */
function complain(problem) {
  const shown = document.querySelector("#api");
  shown.className = "problem";
  shown.textContent = `The description cannot be shown: ${problem}`;
}

paint();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

try {
  const response = await fetch("openapi.json");
  if (!response.ok) throw new Error(`openapi.json is answered ${response.status}`);
  const spec = { ...(await response.json()), servers: [{ url: here }] };
  SwaggerUIBundle({
    spec,
    domNode: document.querySelector("#api"),
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    persistAuthorization: false, // a key is kept by nobody
    tryItOutEnabled: true,
    validatorUrl: null, // nothing is sent elsewhere
  });
} catch (problem) {
  complain(problem.message);
}
