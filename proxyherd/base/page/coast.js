// The coastline of the world, as the data of a path: degrees from 180° west to the right, and from 90° north down.

export async function coastline() {
  const answer = await fetch(new URL("coast.json", import.meta.url));
  const { rings } = await answer.json();
  return rings.map(outline).join("");
}

// A ring has tenths of a degree: its first point, then differences.
function outline(ring) {
  let [x, y] = ring;
  let path = `M${spelled(x, y)}`;
  for (let at = 2; at < ring.length; at += 2) {
    x += ring[at];
    y += ring[at + 1];
    path += `L${spelled(x, y)}`;
  }
  return `${path}Z`;
}

const spelled = (x, y) => `${(x + 1800) / 10},${(900 - y) / 10}`;
