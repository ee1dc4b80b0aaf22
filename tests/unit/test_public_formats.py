"""Each YAML of docs/public-formats.md takes a tiny file in the log's own format."""

# ruff: noqa: E501  (rows of published logs are long)

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from prepare_helpers import contents

from attnrec_dist.data.shards import DataSet
from attnrec_dist.errors import AttnrecError
from attnrec_dist.prepare.config import PrepareConfig
from attnrec_dist.prepare.pipeline import prepare
from attnrec_dist.settings import build, parse_yaml

PAGE = (Path(__file__).parents[2] / "docs" / "public-formats.md").read_text(encoding="utf-8")
YAML = dict(re.findall(r"^## ([^\n]+)\n\n```yaml\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
REVIEW = '{"reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "reviewerName": "J. \\"M\\"", "helpful": [2, 3], "reviewText": "I", "overall": 5.0, "summary": "H", "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009"}\n'
REVIEW_2023 = '{"rating": 5.0, "title": "S", "text": "M", "images": [], "asin": "B00YQ6X8EO", "parent_asin": "B00YQ6X8EO", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": true}\n'
YELP = '{"review_id":"KU_O5udG6zpxOg-VcAEodg","user_id":"mh_-eMZ6K5RLWhZyISBhwA","business_id":"XQfwVwDr-v0ZS3_CbbE5Xw","stars":3.0,"useful":0,"funny":0,"cool":0,"text":"If","date":"2018-07-07 22:09:11"}\n'
GENRES = "|0" * 19
RETAIL = '{}\n536365,85123A,"HANGER, T-LIGHT",6,12/1/2010 8:26,2.55,17850,United Kingdom\n536366,22632,X,1,12/1/2010 8:28,1,,United Kingdom\nC536379,D,D,-1,12/1/2010 9:41,27.5,14527,United Kingdom\n'
RETAIL_II = RETAIL.format("Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country")

# name -> files, and the first event that is kept: (user, item, unix second)
LOGS: dict[str, tuple[dict[str, str | bytes], tuple[str, str, int]]] = {
    "RecBole .inter": (
        {"ml-1m.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t1193\t5\t978300760\n"},
        ("1", "1193", 978300760),
    ),
    "MovieLens 100k": (
        {
            "u.data": "196\t242\t3\t881250949\n",
            "u.item": ("242|Kolya, é (1996)|24-Jan-1997||http://x" + GENRES + "\n").encode("latin-1"),
        },
        ("196", "242", 881250949),
    ),
    "MovieLens 1M": (
        {
            "ratings.dat": "1::1193::5::978300760\n",
            "movies.dat": '1193::Misérables, "Les" (1995)::Drama|Musical\n'.encode("latin-1"),
        },
        ("1", "1193", 978300760),
    ),
    "MovieLens 10M": (
        {"ratings.dat": "1::122::5::838985046\n1::185::4.5::838983525\n", "movies.dat": "122::Misérables::Comedy|Romance\n"},
        ("1", "185", 838983525),
    ),
    "MovieLens 20M, 25M, 32M": (
        {
            "ratings.csv": "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n",
            "movies.csv": 'movieId,title,genres\n296,"Pulp, Fiction (1994)",Crime|Drama\n',
        },
        ("1", "296", 1147880044),
    ),
    "Amazon 2014, 2018 reviews": ({"reviews.json.gz": REVIEW}, ("A2SUAM1J3GNN3B", "0000013714", 1252800000)),
    "Amazon 2014 ratings only": (
        {"ratings.csv": "A2SUAM1J3GNN3B,0000013714,5.0,1252800000\n"},
        ("A2SUAM1J3GNN3B", "0000013714", 1252800000),
    ),
    "Amazon 2018 ratings only": (
        {"ratings.csv": "0000013714,A2SUAM1J3GNN3B,5.0,1252800000\n"},
        ("A2SUAM1J3GNN3B", "0000013714", 1252800000),
    ),
    "Amazon 2023 reviews": ({"reviews.jsonl.gz": REVIEW_2023}, ("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00YQ6X8EO", 1588687728)),
    "Amazon 2023 ratings only": (
        {"ratings.csv.gz": "user_id,parent_asin,rating,timestamp\nAGKH,B00YQ6X8EO,5.0,1588687728923\n"},
        ("AGKH", "B00YQ6X8EO", 1588687728),
    ),
    "Yelp": ({"yelp_academic_dataset_review.json": YELP}, ("mh_-eMZ6K5RLWhZyISBhwA", "XQfwVwDr-v0ZS3_CbbE5Xw", 1531001351)),
    "Yoochoose": (
        {"yoochoose-clicks.dat": "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n"},
        ("1", "214536502", 1396867869),
    ),
    "Diginetica": (
        {
            "train-item-views.csv": "sessionId;userId;itemId;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n1;NA;31331;1031018;2016-05-09\n"
        },
        ("1", "81766", 526),
    ),
    "Retailrocket": (
        {"events.csv": "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"},
        ("257597", "355908", 1433221332),
    ),
    "REES46": (
        {
            "2019-Oct.csv": "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde-8bb3-4e00-8c23-a032dfed738c\n"
        },
        ("541312140", "44600062", 1569888000),
    ),
    "H&M": (
        {
            "transactions_train.csv": '"t_dat","customer_id","article_id","price","sales_channel_id"\n2018-09-20,000058a12d5b43e67d225668fa1f8d618c13dc232df0cad8ffe7ad4a1091e318,0663713001,0.0508305084745762,2\n',
            "articles.csv": "article_id,product_code,prod_name\n0663713001,0663713,Strap top\n",
        },
        ("000058a12d5b43e67d225668fa1f8d618c13dc232df0cad8ffe7ad4a1091e318", "0663713001", 1537401600),
    ),
    "Instacart": (
        {
            "order_products__prior.csv": "order_id,product_id,add_to_cart_order,reordered\n2,33120,1,1\n2,28985,2,1\n",
            "order_products__train.csv": "order_id,product_id,add_to_cart_order,reordered\n1,49302,1,1\n",
            "orders.csv": "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order\n2,202279,prior,3,5,09,8.0\n1,202279,train,4,4,10,9.0\n",
            "products.csv": 'product_id,product_name,aisle_id,department_id\n28985,"Michigan, Kale",83,4\n',
        },
        ("202279", "28985", 3),
    ),
    "Tmall": (
        {
            "user_log_format1.csv": "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n328862,323294,833,2882,2661,829,0\n328862,844400,1271,2882,2661,1111,2\n"
        },
        ("328862", "323294", 829),
    ),
    "Taobao UserBehavior": (
        {"UserBehavior.csv": "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,pv,-1511561733\n"},
        ("1", "2268318", 1511544070),
    ),
    "LastFM-1K": (
        {
            "userid-timestamp-artid-artname-traid-traname.tsv": 'user_000001\t2009-05-04T23:08:57Z\tf1b1cf71-bd35-4e99-8624-24a6e15f133a\tDeep "Dish\t\tComposition\n'
        },
        ("user_000001", "f1b1cf71-bd35-4e99-8624-24a6e15f133a", 1241478537),
    ),
    "Gowalla": (
        {"loc-gowalla_totalCheckins.txt.gz": "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n"},
        ("0", "22847", 1287532527),
    ),
    "Foursquare": (
        {
            "dataset_TSMC2014_NYC.txt": "470\t49bbd6c0f964a520f4531fe3\t4bf58dd8d48988d127951735\tCafé\t40.7\t-74.0\t-240\tTue Apr 03 18:00:09 +0000 2012\n".encode(
                "latin-1"
            )
        },
        ("470", "49bbd6c0f964a520f4531fe3", 1333476009),
    ),
    "KuaiRand": (
        {
            "log_standard_4_08_to_4_21_pure.csv": "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n0,3841,20220408,1600,1649405401466,1,0,0,0,0,0,1,5000,10000,0,0,0,0,1\n0,77,20220408,1600,1649405401999,0,0,0,0,0,0,0,0,10000,0,0,0,0,1\n"
        },
        ("0", "3841", 1649405401),
    ),
    "Dunnhumby": (
        {
            "transaction_data.csv": "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY,SALES_VALUE,STORE_ID,RETAIL_DISC,TRANS_TIME,WEEK_NO,COUPON_DISC,COUPON_MATCH_DISC\n2375,26984851472,1,1004906,1,1.39,364,-0.6,1631,1,0,0\n"
        },
        ("2375", "1004906", 86400 + 16 * 3600 + 31 * 60),
    ),
    "UCI Online Retail": (
        {"Online Retail.csv": RETAIL.format("InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country")},
        ("17850", "85123A", 1291191960),
    ),
    "UCI Online Retail II": (
        {"Year 2009-2010.csv": RETAIL_II.replace("2010 8:26", "2009 7:45"), "Year 2010-2011.csv": RETAIL_II},
        ("17850", "85123A", 1259653500),
    ),
}


def prepared(tmp_path: Path, yaml: str, files: dict[str, str | bytes], **also) -> DataSet:
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    tree = parse_yaml(yaml, "docs") | {"output": {"dir": "d"}, "engine": {"memory_limit": "200MB", "threads": 1}}
    tree.setdefault("split", {"train": 1, "validation": 0, "test": 0})
    prepare(build(PrepareConfig, tree, "docs"), tmp_path, tmp_path / "d")
    return DataSet.open(tmp_path / "d")


@pytest.mark.parametrize("name", YAML)
def test_the_yaml_of_a_public_log_takes_it(tmp_path, name):
    files, first = LOGS[name]
    data = prepared(tmp_path, YAML[name], files)
    user, _, _, events = contents(data)[0]
    assert (user, *events[0][:2]) == first
    if "items" in parse_yaml(YAML[name], "docs"):
        assert any(data.items()["title"].to_pylist())


def test_every_log_of_the_test_is_on_the_page():
    assert LOGS.keys() == YAML.keys()


@pytest.mark.parametrize(
    ("name", "file", "content", "columns", "said"),
    [
        (
            "RecBole session files",
            "s.inter",
            "session_id:token\titem_id_list:token_seq\titem_id:token\n"
            + "".join(f"{k}\t{k} {k + 1} {k + 2 * (k % 3)}\t{k}\n" for k in range(9)),
            "{user: 'session_id:token', item: 'item_id_list:token_seq', timestamp: 'item_id:token'}",
            "lists of ids",
        ),
        (
            "Steam",
            "s.json",
            "{u'username': u'Chaos Syren', u'product_id': u'725280', u'date': u'2017-12-17'}\n",
            "{user: username, item: product_id, timestamp: date}",
            "Python's notation",
        ),
        (
            "OTTO",
            "train.jsonl",
            '{"session": 1, "events": [{"aid": 5, "ts": 1659304800025, "type": "clicks"}]}\n',
            "{user: session, item: events, timestamp: session}",
            "only plain values",
        ),
    ],
)
def test_what_is_not_taken_is_refused_in_words(tmp_path, name, file, content, columns, said):
    assert f"| {name} |" in PAGE
    with pytest.raises(AttnrecError, match=said):
        prepared(
            tmp_path,
            f"input: {{files: {file}{', format: tsv' if file.endswith('inter') else ''}}}\ncolumns: {columns}",
            {file: content},
        )
