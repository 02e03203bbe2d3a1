//! The road: stations in their order, and how far each is from Nihonbashi.

use serde::Serialize;

/// Kilometres of one ri.
const KILOMETRES: f64 = 3.927;
/// Ri that a traveller of the time walked in a day.
const A_DAY: f64 = 9.0;

/// A station of the road.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Station {
    pub number: u8,
    pub name: String,
    /// Distance from Nihonbashi, in ri.
    pub ri: f64,
}

/// A walk between two stations.
#[derive(Debug, PartialEq, Serialize)]
pub struct Walk {
    pub from: String,
    pub to: String,
    pub kilometres: f64,
    pub days: u32,
    /// The checkpoint at Hakone asks for papers.
    pub checkpoint: bool,
}

/// All stations, in the order of the road.
#[derive(Clone, Debug)]
pub struct Road(Vec<Station>);

impl Road {
    /// Read a table with the columns number, name and ri.
    pub fn read(table: &str) -> Result<Self, String> {
        let mut stations = Vec::new();
        for (index, line) in table.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |what: &str| format!("line {}: {what}", index + 1);
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let [number, name, ri] = cells[..] else {
                return Err(wrong("not three columns"));
            };
            stations.push(Station {
                number: number.parse().map_err(|_| wrong("the number is none"))?,
                name: name.to_owned(),
                ri: ri.parse().map_err(|_| wrong("the distance is none"))?,
            });
        }
        if stations.is_empty() {
            return Err("there is no station".to_owned());
        }
        if !stations.windows(2).all(|pair| pair[0].ri < pair[1].ri) {
            return Err("the stations are not in the order of the road".to_owned());
        }
        Ok(Self(stations))
    }

    pub fn stations(&self) -> &[Station] {
        &self.0
    }

    /// Find a station by its name, in any case.
    pub fn station(&self, name: &str) -> Option<&Station> {
        self.0.iter().find(|station| station.name.eq_ignore_ascii_case(name))
    }

    /// How far it is from one station to another.
    pub fn walk(&self, from: &Station, to: &Station) -> Walk {
        let ri = (from.ri - to.ri).abs();
        let gate = self.station("Hakone").map_or(f64::NAN, |station| station.ri);
        Walk {
            from: from.name.clone(),
            to: to.name.clone(),
            kilometres: (ri * KILOMETRES * 10.0).round() / 10.0,
            days: (ri / A_DAY).ceil() as u32,
            checkpoint: from.ri.min(to.ri) <= gate && gate <= from.ri.max(to.ri) && ri > 0.0,
        }
    }
}
