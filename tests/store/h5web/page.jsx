import "@h5web/app/dist/styles.css";

import { App } from "@h5web/app";
import { H5WasmBufferProvider } from "@h5web/h5wasm";
import { createRoot } from "react-dom/client";

const query = new URLSearchParams(location.search);
const file = query.get("file");
const buffer = await (await fetch(file)).arrayBuffer();

createRoot(document.getElementById("page")).render(
  <div style={{ height: "100vh" }}>
    <H5WasmBufferProvider filename={file} buffer={buffer}>
      <App initialPath={query.get("path") ?? "/"} sidebarOpen={query.has("sidebar")} />
    </H5WasmBufferProvider>
  </div>,
);

// The page counts as loaded, and is photographed, once the picture has stood for a second.
const isDrawn = () => document.querySelector("canvas") && !document.body.innerText.includes("Loading");
let drawnFor = 0;
const timer = setInterval(() => {
  drawnFor = isDrawn() ? drawnFor + 1 : 0;
  if (drawnFor === 10) {
    clearInterval(timer);
    fetch("drawn");
  }
}, 100);
