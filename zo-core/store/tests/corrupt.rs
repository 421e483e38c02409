//! Damaged files: the right data or `Corrupt`, never a panic, a hang or wrong data.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{collections::BTreeMap, ops::ControlFlow};
use zo_store::{Options, Scan, Store, Table, fault::FaultDisk};
use zo_traits::{ErrorKind, Result};

const TABLES: [Table; 3] = [Table::new("one"), Table::new("two"), Table::new("three")];

type Rows = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

fn rows() -> Rows {
    let mut rows = Rows::new();
    for t in 0..3 {
        for i in 0..400u32 {
            let n = (i * 7 + t as u32) % 90;
            rows.insert((t, i.to_be_bytes().to_vec()), i.to_be_bytes().repeat(n as usize));
        }
    }
    rows.insert((1, b"large".to_vec()), vec![7; 50_000]);
    rows
}

/// Images of a store: closed in good order, and as it is when the power goes.
fn images() -> [Vec<u8>; 2] {
    let disk = FaultDisk::new();
    let store = Store::open_with_backend(disk.clone(), Options::default()).unwrap();
    let rows = rows();
    for part in 0..4 {
        let rows = rows.clone();
        store
            .write_blocking(move |tx| {
                for (i, ((t, k), v)) in rows.iter().enumerate() {
                    if i % 4 <= part {
                        tx.put(TABLES[*t], k, v)?;
                    }
                }
                Ok(())
            })
            .unwrap();
    }
    let crashed = disk.image();
    drop(store);
    [disk.image(), crashed]
}

fn read_all(store: &Store) -> Result<Rows> {
    let snapshot = store.snapshot()?;
    let mut found = Rows::new();
    for (t, table) in TABLES.into_iter().enumerate() {
        snapshot.scan(table, &Scan::all(), |k, v| {
            found.insert((t, k.to_vec()), v.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        snapshot.get(table, b"large")?;
        snapshot.len(table)?;
    }
    Ok(found)
}

/// What a damaged image leads to.
#[derive(Default, Debug)]
struct Tally {
    right: u32,
    corrupt: u32,
    unsupported: u32,
    /// After a crash, a damaged newest commit cannot be told from a torn one: the commit before it is right then.
    older: u32,
    wrong: u32,
}

fn try_out(image: Vec<u8>, options: Options, expected: &Rows, tally: &mut Tally) {
    let disk = FaultDisk::with_image(image);
    let outcome = Store::open_with_backend(disk, options).and_then(|store| {
        let found = read_all(&store)?;
        // Writing to it must not panic either.
        store.write_blocking(|tx| {
            tx.put(TABLES[0], b"after", &[1; 5000])?;
            tx.delete(TABLES[1], b"large")
        })?;
        drop(store);
        Ok(found)
    });
    match outcome {
        Ok(found) if found == *expected => tally.right += 1,
        Ok(found) if found.iter().all(|(k, v)| expected.get(k) == Some(v)) => tally.older += 1,
        Ok(_) => tally.wrong += 1,
        Err(e) => match e.kind() {
            ErrorKind::Corrupt => tally.corrupt += 1,
            ErrorKind::Unsupported => tally.unsupported += 1,
            _ => panic!("damage was reported as {e:?}"),
        },
    }
}

/// Places that matter: the header byte by byte, and a spread over the pages.
fn places(len: usize, count: usize) -> Vec<usize> {
    let step = (len / count).max(1) | 1;
    (0..512).chain((512..len).step_by(step)).collect()
}

#[test]
fn a_flipped_bit_is_found_or_does_no_harm() {
    let expected = rows();
    for (name, image) in ["closed", "crashed"].into_iter().zip(images()) {
        let mut tally = Tally::default();
        for (i, at) in places(image.len(), 400).into_iter().enumerate() {
            let mut image = image.clone();
            image[at] ^= 1 << (i % 8);
            try_out(image, Options::default(), &expected, &mut tally);
        }
        println!("{name}, one bit flipped: {tally:?}");
        assert_eq!(tally.wrong, 0);
        assert!(tally.corrupt > 20 && tally.right > 100, "{tally:?}");
        assert!(name == "crashed" || tally.older == 0, "a closed file never falls back: {tally:?}");
    }
}

#[test]
fn overwritten_and_missing_pieces_are_found() {
    let expected = rows();
    for (name, image) in ["closed", "crashed"].into_iter().zip(images()) {
        let mut tally = Tally::default();
        for (i, at) in places(image.len(), 150).into_iter().enumerate().skip(300) {
            let mut damaged = image.clone();
            let end = (at + 700).min(damaged.len());
            damaged[at..end].fill([0, 0xff, 0x5a][i % 3]);
            try_out(damaged, Options::default(), &expected, &mut tally);
            let mut short = image.clone();
            short.truncate(at);
            try_out(short, Options::default(), &expected, &mut tally);
        }
        println!("{name}, overwritten or cut: {tally:?}");
        assert_eq!(tally.wrong, 0);
        assert!(tally.corrupt > 100, "{tally:?}");
    }
}

/// Above the verify limit a file that was closed in good order is trusted: wrong data is possible, a panic is not.
#[test]
fn an_unverified_file_may_mislead_but_never_panics() {
    let expected = rows();
    let [image, _] = images();
    let mut tally = Tally::default();
    for (i, at) in places(image.len(), 300).into_iter().enumerate() {
        let mut image = image.clone();
        image[at] ^= 1 << (i % 8);
        try_out(image, Options::default().verify_limit(0), &expected, &mut tally);
    }
    println!("unverified, one bit flipped: {tally:?}");
    assert!(tally.right > 100);
}
