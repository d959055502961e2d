// Search without a server: browsers start no worker of a page that was opened as a file, so the worker's script runs in
// a hidden frame instead. The theme would fetch such a stand-in from the internet, but for one of this name.
if (location.protocol === "file:") {
  self.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc =
        `<script>receive = postMessage.bind(self); postMessage = data => parent.postMessage(data, "*");` +
        `importScripts = () => {}</script><script src="${url}"></script>`;
      frame.onload = () => {
        waiting.splice(0).forEach((data) => frame.contentWindow.receive(data, "*"));
        frame.loaded = true;
      };
      addEventListener("message", (event) => {
        if (event.source === frame.contentWindow) {
          event.stopImmediatePropagation();
          this.dispatchEvent(new MessageEvent("message", { data: event.data }));
        }
      });
      document.documentElement.append(frame);
      this.postMessage = (data) => (frame.loaded ? frame.contentWindow.receive(data, "*") : waiting.push(data));
    }
  };
}
