mod fixture;
mod framing;
mod headers;
mod matching;
mod routing;
mod streams;
mod table;
mod unwell;
