// Distances, directions and words for places on the earth, which is a sphere here.

const RADIUS_M = 6_371_009;
const METRES_A_DEGREE = (RADIUS_M * Math.PI) / 180;
const WINDS = ["north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west"];

const radians = (degrees) => (degrees * Math.PI) / 180;
const around = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180; // also over the date line

// Metres to the east and to the north of a point: a flat map, right for what is near that point.
export function plane(from, to) {
  return {
    east: around(to.lon - from.lon) * METRES_A_DEGREE * Math.cos(radians(from.lat)),
    north: (to.lat - from.lat) * METRES_A_DEGREE,
  };
}

// The point that is these metres to the east and to the north: the reverse of `plane`.
export function moved(from, { east, north }) {
  return {
    lat: Math.max(-90, Math.min(90, from.lat + north / METRES_A_DEGREE)),
    lon: around(from.lon + east / METRES_A_DEGREE / Math.max(0.01, Math.cos(radians(from.lat)))),
  };
}

export function metres(from, to) {
  const lat = radians(to.lat - from.lat) / 2;
  const lon = radians(to.lon - from.lon) / 2;
  const chord = Math.sin(lat) ** 2 + Math.cos(radians(from.lat)) * Math.cos(radians(to.lat)) * Math.sin(lon) ** 2;
  return 2 * RADIUS_M * Math.asin(Math.min(1, Math.sqrt(chord)));
}

export function wind(from, to) {
  const { east, north } = plane(from, to);
  return WINDS[Math.round((Math.atan2(east, north) / Math.PI) * 4 + 8) % 8];
}

export function distance(length) {
  if (length < 1000) return `${Math.round(length)} m`;
  return `${Number((length / 1000).toFixed(length < 10_000 ? 1 : 0))} km`;
}

export function spelled({ lat, lon }) {
  const one = (degrees, positive, negative) => `${Math.abs(degrees).toFixed(5)}° ${degrees < 0 ? negative : positive}`;
  return `${one(lat, "N", "S")}, ${one(lon, "E", "W")}`;
}

export function ago(seconds) {
  if (seconds < 2) return "just now";
  if (seconds < 120) return `${Math.round(seconds)} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} days ago`;
}
