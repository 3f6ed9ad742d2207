// Takes pictures with the webcam for as long as a button is held, and uploads each at once; pasted pictures, too.
const part = name => element.querySelector(name);
const box = part('.webcam'), video = part('video'), turn = part('.turn'), hold = part('.hold'), says = part('[role=status]');
const MILLISECONDS = 150, SIDE = 128;  // between two pictures, and of each picture in pixels
const canvas = Object.assign(document.createElement('canvas'), {width: SIDE, height: SIDE});
let stream = null, timer = null, uploads = [];

turn.textContent = TURN_ON;
hold.textContent = HOLD;

const nameField = () => document.querySelector('#class-name :is(input, textarea)');

function isNamed() {
  const isGiven = Boolean(nameField()?.value.trim());
  says.textContent = isGiven ? '' : NO_NAME;
  if (!isGiven) nameField()?.focus();
  return isGiven;
}

async function turnOn() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {width: {ideal: 640}}});
  } catch {  // none, refused, or a page that is not served over https
    says.textContent = NO_WEBCAM;
    return;
  }
  video.srcObject = stream;
  await video.play();
  show();
  const watch = setInterval(() => {  // the part of the page may be gone
    if (stream && !element.isConnected) turnOff();
    if (!stream) clearInterval(watch);
  }, 500);
}

function turnOff() {
  end();
  for (const track of stream.getTracks()) track.stop();
  stream = video.srcObject = null;
  show();
}

function show() {
  video.hidden = hold.hidden = !stream;
  turn.textContent = stream ? TURN_OFF : TURN_ON;
  says.textContent = '';
}

// The middle of what the webcam sees, as in a mirror: so does Gradio's webcam, with which pictures are classified.
function take() {
  const {videoWidth: width, videoHeight: height} = video, side = Math.min(width, height);
  const context = canvas.getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.setTransform(-1, 0, 0, 1, SIDE, 0);
  context.drawImage(video, (width - side) / 2, (height - side) / 2, side, side, 0, 0, SIDE, SIDE);
  const picture = new Promise(done => canvas.toBlob(done, 'image/png'));
  uploads.push(picture.then(blob => upload(new File([blob], 'webcam.png', {type: 'image/png'}))));
  says.textContent = uploads.length;
}

function begin() {
  if (timer || hold.disabled || !stream || !isNamed()) return;
  take();
  timer = setInterval(take, MILLISECONDS);
}

function end() {
  if (!timer) return;
  clearInterval(timer);
  timer = null;
  add(uploads.splice(0));
}

// Sends the pictures that were uploaded. Until the server has answered, no others are taken.
async function add(pending) {
  hold.disabled = true;
  const results = await Promise.allSettled(pending);
  const files = results.filter(result => result.value).map(result => result.value.path);
  if (files.length) trigger('uploaded', {files}); else hold.disabled = false;
}

turn.onclick = () => stream ? turnOff() : turnOn();
hold.oncontextmenu = event => event.preventDefault();  // of a long press on a phone
hold.onpointerdown = event => { hold.setPointerCapture(event.pointerId); begin(); };
hold.onpointerup = hold.onpointercancel = hold.onblur = end;
hold.onkeydown = event => { if ([' ', 'Enter'].includes(event.key)) { event.preventDefault(); begin(); } };
hold.onkeyup = end;
box.addEventListener('answered', () => { hold.disabled = false; says.textContent = ''; });
document.addEventListener('visibilitychange', end);

document.addEventListener('paste', event => {
  const files = [...event.clipboardData.files].filter(file => file.type.startsWith('image/'));
  if (files.length && element.offsetParent && isNamed()) add(files.map(file => upload(file)));
});
