// Moves the fence, and draws a new one: with a pointer, or with keys.

import { plane } from "./earth.js";
import { Polygon, closed, simplified } from "./shapes.js";
import { drawing } from "./words.js";

const STEP_PX = 10;
const LEAST_PX = 12; // a stroke that is smaller is no fence
const LARGER = 1.1;
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pencil {
  // `view()`, `shape()`: what is seen now; `put(shape)`: the fence is another one; `drawing(isOn)`: whether strokes draw.
  constructor(svg, fence, page, button) {
    Object.assign(this, { svg, fence, page });
    this.isDrawing = false;
    button.addEventListener("click", () => this.turn(!this.isDrawing));
    fence.addEventListener("pointerdown", (event) => this.grasp(event));
    fence.addEventListener("keydown", (event) => this.press(event));
    svg.addEventListener("pointerdown", (event) => this.begin(event));
    document.addEventListener("keydown", ({ key }) => { if (key === "Escape") this.turn(false); });
  }

  turn(isOn) {
    this.isDrawing = isOn;
    this.page.drawing(isOn);
  }

  point(event) {
    const { left, top } = this.svg.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  // Follows a pointer until it is up.
  track(event, moves, ends = () => {}) {
    event.preventDefault();
    const { pointerId } = event;
    this.svg.setPointerCapture(pointerId);
    const move = (one) => { if (one.pointerId === pointerId) moves(this.point(one)); };
    const end = (one) => {
      if (one.pointerId !== pointerId) return;
      this.svg.removeEventListener("pointermove", move);
      for (const name of ["pointerup", "pointercancel"]) this.svg.removeEventListener(name, end);
      ends(one.type === "pointerup");
    };
    this.svg.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) this.svg.addEventListener(name, end);
  }

  grasp(event) {
    if (this.isDrawing || event.button) return;
    this.fence.focus({ preventScroll: true });
    const view = this.page.view();
    const shape = this.page.shape();
    if (event.target.classList.contains("handle")) {
      this.track(event, (point) => this.page.put(shape.through(view.place(point))));
      return;
    }
    const from = view.place(this.point(event));
    this.track(event, (point) => this.page.put(shape.moved(plane(from, view.place(point)))));
  }

  begin(event) {
    if (!this.isDrawing || event.button) return;
    const points = [this.point(event)];
    const stroke = drawing("polyline", { class: "stroke" });
    this.svg.append(stroke);
    this.track(event, (point) => {
      points.push(point);
      stroke.setAttribute("points", points.map((one) => one.join()).join(" "));
    }, (isDone) => {
      stroke.remove();
      this.turn(false);
      if (isDone) this.close(points);
    });
  }

  close(points) {
    const [width, height] = [0, 1].map((axis) => Math.max(...points.map((one) => one[axis])) - Math.min(...points.map((one) => one[axis])));
    const corners = closed(simplified(points));
    if (corners.length < 3 || width < LEAST_PX || height < LEAST_PX) return;
    const view = this.page.view();
    this.page.put(new Polygon(corners.map((point) => view.place(point))));
  }

  press(event) {
    const [east, south] = STEPS[event.key] ?? [0, 0];
    const view = this.page.view();
    const shape = this.page.shape();
    if (east || south) this.page.put(shape.moved({ east: STEP_PX * view.scale * east, north: -STEP_PX * view.scale * south }));
    else if (event.key === "+" || event.key === "=") this.page.put(shape.scaled(LARGER));
    else if (event.key === "-") this.page.put(shape.scaled(1 / LARGER));
    else return;
    event.preventDefault();
  }
}
