// The same from an ES module.

export const double = (data) => 2 * data;
export default async (data) => [data];
export const nothing = 1;
