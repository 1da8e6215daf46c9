// XMLHttpRequest as React Native has it, as far as react-native-sse can tell: text comes as it arrives, and
// after a failure in the body the status stays what it was while the text becomes the error's message (a
// browser would say status 0 and no text). A failure before the head leaves the status at 0 here, too.
// Source: Libraries/Network/XMLHttpRequest.js of React Native, __didCompleteResponse.

import http from "node:http";

export class XMLHttpRequest {
  static UNSENT = 0;
  static OPENED = 1;
  static HEADERS_RECEIVED = 2;
  static LOADING = 3;
  static DONE = 4;

  readyState = 0;
  status = 0;
  responseText = "";
  timeout = 0;
  onreadystatechange = null;
  onerror = null;
  #method = "";
  #url = "";
  #headers = {};
  #request = null;
  #over = false;

  open(method, url) {
    this.#method = method;
    this.#url = url;
    this.#become(1);
  }

  setRequestHeader(name, value) {
    this.#headers[name.toLowerCase()] = String(value);
  }

  send(body) {
    const request = http.request(this.#url, { method: this.#method, headers: this.#headers, agent: false });
    this.#request = request;
    request.on("error", (error) => this.#complete(error));
    request.on("response", (response) => {
      this.status = response.statusCode;
      this.#become(2);
      response.setEncoding("utf8");
      response.on("data", (text) => {
        this.responseText += text;
        this.#become(3);
      });
      response.on("error", (error) => this.#complete(error));
      response.on("end", () => this.#complete(null));
    });
    request.end(body);
  }

  abort() {
    this.#over = true;
    this.#request?.destroy();
  }

  #become(state) {
    this.readyState = state;
    if (!this.#over || state === 4) this.onreadystatechange?.();
  }

  #complete(error) {
    if (this.#over) return;
    this.#over = true;
    if (error) this.responseText = error.message;
    this.#become(4);
    if (error) this.onerror?.();
  }
}
