// Gestures to begin with, as curves in the unit square, y down: shown dotted on the empty pad, to be drawn over.

const turn = 2 * Math.PI;

function polyline(corners) {
  const lengths = corners.slice(1).map(([x, y], i) => Math.hypot(x - corners[i][0], y - corners[i][1]));
  const total = lengths.reduce((sum, length) => sum + length, 0);
  return (t) => {
    let rest = t * total;
    for (let i = 0; i < lengths.length; i++) {
      if (rest <= lengths[i] || i === lengths.length - 1) {
        const share = Math.min(1, rest / lengths[i]);
        return [0, 1].map((axis) => corners[i][axis] + share * (corners[i + 1][axis] - corners[i][axis]));
      }
      rest -= lengths[i];
    }
    return corners.at(-1);
  };
}

export const SHAPES = {
  circle: (t) => [0.5 - 0.36 * Math.sin(turn * t), 0.5 - 0.36 * Math.cos(turn * t)],
  zigzag: polyline([[0.1, 0.3], [0.36, 0.7], [0.5, 0.3], [0.64, 0.7], [0.9, 0.3]]),
  spiral: (t) => {
    const radius = 0.04 + 0.36 * t;
    return [0.5 + radius * Math.cos(2.25 * turn * t), 0.5 + radius * Math.sin(2.25 * turn * t)];
  },
  tick: polyline([[0.18, 0.52], [0.4, 0.76], [0.84, 0.22]]),
  eight: (t) => [0.5 + 0.4 * Math.sin(turn * t), 0.5 - 0.24 * Math.sin(2 * turn * t)],
};
