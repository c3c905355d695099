// Picks on the map: a click is a place, and a drag a circle. Both have a text field beside the map, for keyboards.

const LEAST_PIXELS = 6; // a shorter drag is a click
const KILOMETRES_A_DEGREE = 111.195;
export const MOST_KILOMETRES = 2000;

export const kilometres = (a, b) => {
  const radians = Math.PI / 180;
  const [north, east] = [(b.latitude - a.latitude) * radians / 2, (b.longitude - a.longitude) * radians / 2];
  const haversine = Math.sin(north) ** 2 + Math.cos(a.latitude * radians) * Math.cos(b.latitude * radians) * Math.sin(east) ** 2;
  return 2 * Math.asin(Math.min(1, Math.sqrt(haversine))) * KILOMETRES_A_DEGREE / radians;
};

// `on.place` gets a place and how far away a client may be that is meant; `on.circle` a circle; `on.draft` one that is drawn.
export function pick(canvas, on) {
  let start = null;
  const placeOf = (event) => ({
    latitude: 90 - Math.min(1, Math.max(0, event.offsetY / canvas.clientHeight)) * 180,
    longitude: Math.min(1, Math.max(0, event.offsetX / canvas.clientWidth)) * 360 - 180,
  });
  const drawn = (event) => {
    const far = Math.hypot(event.offsetX - start.x, event.offsetY - start.y) >= LEAST_PIXELS;
    return far ? { ...start.place, km: Math.min(MOST_KILOMETRES, kilometres(start.place, placeOf(event))) } : null;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    start = { x: event.offsetX, y: event.offsetY, place: placeOf(event) };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => { if (start) on.draft(drawn(event)); });
  canvas.addEventListener("pointercancel", () => { start = null; on.draft(null); });
  canvas.addEventListener("pointerup", (event) => {
    if (!start) return;
    const circle = drawn(event);
    const { place } = start;
    start = null;
    if (circle) on.circle(circle);
    else on.place({ ...place, km: Math.min(MOST_KILOMETRES, LEAST_PIXELS * 360 / canvas.clientWidth * KILOMETRES_A_DEGREE) });
  });
}
