// The API's description, shown by Swagger UI.
//
// Requests that are tried go to where this page came from, whatever address a proxy in front made of it.

/* global SwaggerUIBundle */

const here = new URL("./", location.href).href.replace(/\/$/, "");

/** Show what went wrong instead of an empty page. */
function complain(problem) {
  document.querySelector("#api").textContent = `The description cannot be shown: ${problem}`;
}

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
