// Runs before Gradio (6.31), whose loading screen moves at every frame, and counts its seconds even when it is gone: a
// page that opens slowly would thereby open more slowly yet, and one that is merely open keep a processor busy. Here
// whatever counts seconds, and until Train can be pressed also what moves by Svelte's clock, does so in one frame of
// every half second.
(() => {
  const draw = window.requestAnimationFrame.bind(window);
  const counts = /performance\.now\(\)[^;]*\/1e3/;
  const moves = /\.tasks\.forEach\(/;
  const waiting = [];
  const drawWaiting = () => draw((time) => {
    for (const callback of waiting.splice(0)) {
      try {
        callback(time);
      } catch (error) {
        reportError(error);
      }
    }
  });
  let opened = false;
  window.requestAnimationFrame = (callback) => {
    opened ||= document.querySelector("#train:enabled") !== null;
    if (!counts.test(callback) && (opened || !moves.test(callback))) return draw(callback);
    if (waiting.push(callback) === 1) setTimeout(drawWaiting, 500);
    return 0;
  };
})();
