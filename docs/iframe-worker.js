// The search runs in a worker, which browsers refuse to pages that are opened as files. There, a hidden frame does its work.
if (location.protocol === "file:") {
  const inside = `
    postMessage = data => parent.postMessage(data, "*")
    importScripts = (...urls) => Promise.all(urls.map(url => new Promise((done, fail) => {
      document.body.appendChild(Object.assign(document.createElement("script"), { src: url, onload: done, onerror: fail }))
    })))`

  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = Object.assign(document.createElement("iframe"), { hidden: true })
      document.body.appendChild(frame)
      this.page = frame.contentWindow
      this.send = this.page.postMessage.bind(this.page) // before the frame replaces it
      this.page.document.open()
      this.page.document.write(`<body><script>${inside}</script><script src="${url}"></script></body>`)
      this.page.document.close()
      this.ready = new Promise(done => this.page.document.scripts[1].addEventListener("load", done))
      window.addEventListener("message", event => {
        if (event.source !== this.page) return
        const message = new MessageEvent("message", { data: event.data })
        this.dispatchEvent(message)
        if (this.onmessage) this.onmessage(message)
      })
    }

    postMessage(data) {
      this.ready.then(() => this.send(data, "*"))
    }

    terminate() {}
  }
}
