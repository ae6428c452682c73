// On pages opened from the disk browsers start no workers, and search is one: a hidden frame takes its place.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.frame = frame
      const inside = frame.contentWindow
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const load = address =>
        new Promise((resolve, reject) => {
          const script = frame.contentDocument.createElement("script")
          script.src = address
          script.onload = resolve
          script.onerror = reject
          frame.contentDocument.body.append(script)
        })
      inside.importScripts = (...addresses) =>
        addresses.reduce((before, each) => before.then(() => load(each)), Promise.resolve())
      this.ready = load(new URL(url, document.baseURI).href)
    }

    postMessage(data) {
      const inside = this.frame.contentWindow
      this.ready.then(() => inside.dispatchEvent(new inside.MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
  window.Worker = window.IFrameWorker
}
