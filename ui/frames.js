// Runs before Gradio (6.31), whose loading screen counts its seconds at every frame and goes on when it is gone: a page
// that is merely open would keep a processor busy. Here whatever counts seconds does so twice a second.
(() => {
  const draw = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (callback) => {
    if (!/performance\.now\(\)[^;]*\/1e3/.test(callback)) return draw(callback);
    setTimeout(() => draw(callback), 500);
    return 0;
  };
})();
