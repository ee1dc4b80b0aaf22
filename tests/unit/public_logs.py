"""Tiny files in the formats of public logs: header, quoting, delimiter, encoding, packing and units of time as published."""

# ruff: noqa: E501  (rows of published logs are long)

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

GENRES = "|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0"
REVIEW_2014 = '{"reviewerID": "A2SUAM1J3GNN3B", "asin": "0000013714", "reviewerName": "J. \\"M\\"", "helpful": [2, 3], "reviewText": "I", "overall": 5.0, "summary": "H", "unixReviewTime": 1252800000, "reviewTime": "09 13, 2009"}\n'
META_2014 = "{'asin': '0000013714', 'title': \"Girls' \\xc9tude\", 'price': 3.17, 'imUrl': 'http://x/41.jpg', 'related': {'also_bought': ['B00JHONN1S']}, 'salesRank': {'Toys & Games': 211836}, 'brand': 'Coxlures', 'categories': [['Sports & Outdoors', 'Other Sports', 'Dance']]}\n"
REVIEW_2018 = '{"overall": 5.0, "vote": "2", "verified": true, "reviewTime": "01 1, 2018", "reviewerID": "AUI6WTTT0QZYS", "asin": "5120053084", "style": {"Size:": " Large", "Color:": " Charcoal"}, "reviewerName": "Abbey", "reviewText": "I", "summary": "Comfy", "unixReviewTime": 1514764800}\n'
META_2018 = '{"category": ["Clothing"], "tech1": "", "description": ["x"], "fit": "", "title": "Slip, \\"black\\"", "also_buy": [], "tech2": "", "brand": "B", "feature": ["Botiquecutie"], "rank": "19,963,069 in Clothing", "also_view": [], "main_cat": "Clothing", "similar_item": "", "date": "5 star", "price": "$3.17", "asin": "5120053084"}\n'
REVIEW_2023 = '{"rating": 5.0, "title": "S", "text": "M", "images": [], "asin": "B00YQ6X8EO", "parent_asin": "B00YQ6X8EO", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": true}\n'
META_2023 = '{"main_category": "All Beauty", "title": "Spray", "average_rating": 4.8, "rating_number": 10, "features": [], "description": [], "price": null, "images": [{"thumb": "https://x", "large": "https://x", "variant": "MAIN", "hi_res": null}], "videos": [], "store": "H", "categories": [], "details": {"Package Dimensions": "7.1 x 5.5", "UPC": "617390882781"}, "parent_asin": "B00YQ6X8EO", "bought_together": null}\n'
HISTORY = "user_id,parent_asin,rating,timestamp,history\nAGKH,B1,5.0,1588687728923,\n"
YELP = '{"review_id":"KU_O5udG6zpxOg-VcAEodg","user_id":"mh_-eMZ6K5RLWhZyISBhwA","business_id":"XQfwVwDr-v0ZS3_CbbE5Xw","stars":3.0,"useful":0,"funny":0,"cool":0,"text":"If\\nso","date":"2018-07-07 22:09:11"}\n'
BUSINESS = '{"business_id":"XQfwVwDr-v0ZS3_CbbE5Xw","name":"Turning Point","address":"1460 Bethlehem Pike","city":"North Wales","state":"PA","postal_code":"19454","latitude":40.2,"longitude":-75.2,"stars":3.0,"review_count":169,"is_open":1,"attributes":{"NoiseLevel":"u\'average\'"},"categories":"Restaurants, Food","hours":null}\n'
STEAM = "{u'username': u'Chaos Syren', u'hours': 0.1, u'products': 41, u'product_id': u'725280', u'page_order': 0, u'date': u'2017-12-17', u'text': u'It\\u2019s \"so\"', u'early_access': False, u'page': 1}\n{u'username': u'B', u'products': 4, u'product_id': u'725280', u'page_order': 1, u'date': u'2018-01-04', u'text': u\"isn't\", u'early_access': False, u'page': 1}\n"
GAME = "{u'publisher': u'Kotoshiro', u'genres': [u'Action'], u'app_name': u'Lost Kitty', u'title': u'Lost Kitty', u'release_date': u'2018-01-04', u'tags': [u'Indie'], u'discount_price': 4.49, u'price': 4.99, u'early_access': False, u'id': u'725280', u'developer': u'Kotoshiro'}\n"
ARTICLES = "article_id,product_code,prod_name,product_type_no,product_type_name,product_group_name,graphical_appearance_no,graphical_appearance_name,colour_group_code,colour_group_name,perceived_colour_value_id,perceived_colour_value_name,perceived_colour_master_id,perceived_colour_master_name,department_no,department_name,index_code,index_name,index_group_no,index_group_name,section_no,section_name,garment_group_no,garment_group_name,detail_desc\n"
PRODUCTS = 'product_id,product_name,aisle_id,department_id\n28985,Michigan Organic Kale,83,4\n33120,"Scotch Kids 5\\"" Scissors, Blunted, Red",87,17\n'
SESSIONS = "session_id:token\titem_id_list:token_seq\titem_id:token\n"
RETAIL_ROWS = '{0}\n536365,85123A,"HANGER, \xa35",6,{1},2.55,17850,United Kingdom\n536366,22632,,1,{1},1,,United Kingdom\nC536379,D,D,-1,{1},27.5,14527,United Kingdom\n'
RETAIL_HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
RETAIL_II_HEADER = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country"
KUAIRAND = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab\n"
DUNNHUMBY = "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY,SALES_VALUE,STORE_ID,RETAIL_DISC,TRANS_TIME,WEEK_NO,COUPON_DISC,COUPON_MATCH_DISC\n"
OTTO = [
    {"session": 0, "events": [{"aid": 1517085, "ts": 1659304800025, "type": "clicks"}]},
    {
        "session": 1,
        "events": [
            {"aid": 424964, "ts": 1659304800025, "type": "carts"},
            {"aid": 1492293, "ts": 1659304852871, "type": "orders"},
        ],
    },
]

# name -> files, and an event that must come out: (user, item, unix second)
LOGS: dict[str, tuple[dict[str, str | bytes], tuple[str, str, int]]] = {
    "RecBole .inter": (
        {
            "ml-1m.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t1193\t5\t978300760\n",
            "ml-1m.item": 'item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq\n1193\tOne "Flew\t1975\tDrama\n',
        },
        ("1", "1193", 978300760),
    ),
    "RecBole session files": (
        {
            "diginetica.train.inter": SESSIONS + "1\t5 6 5\t7\n2\t5 6\t5\n3\t5\t6\n4\t8\t9\n5\t8 9\t5\n",
            "diginetica.valid.inter": SESSIONS + "1\t6\t5\n",
            "diginetica.test.inter": SESSIONS + "1\t4 6\t5\n",
        },
        ("2", "7", 3),  # the test part is the first file, so the first session
    ),
    "MovieLens 100k": (
        {
            "u.data": "196\t242\t3\t881250949\n",
            "u.item": (
                "242|Kolya, \xe9 (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)" + GENRES + "\n"
            ).encode("latin-1"),
        },
        ("196", "242", 881250949),
    ),
    "MovieLens 1M": (
        {
            "ratings.dat": "1::1193::5::978300760\n",
            "movies.dat": '1193::Mis\xe9rables, "Les" (1995)::Drama|Musical\n'.encode("latin-1"),
        },
        ("1", "1193", 978300760),
    ),
    "MovieLens 10M": (
        {"ratings.dat": "1::122::5::838985046\n1::185::4.5::838983525\n", "movies.dat": "122::Mis\xe9rables::Comedy|Romance\n"},
        ("1", "185", 838983525),
    ),
    "MovieLens 20M, 25M, 32M, latest": (
        {
            "ratings.csv": "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n",
            "movies.csv": 'movieId,title,genres\n296,"Pulp, ""Fiction"" (1994)",Crime|Drama\n',
        },
        ("1", "296", 1147880044),
    ),
    "Amazon 2014 reviews": (
        {"reviews_Beauty_5.json.gz": REVIEW_2014, "meta_Beauty.json.gz": META_2014},
        ("A2SUAM1J3GNN3B", "0000013714", 1252800000),
    ),
    "Amazon 2014 ratings only": (
        {"ratings_Beauty.csv": "A2SUAM1J3GNN3B,0000013714,5.0,1252800000\n"},
        ("A2SUAM1J3GNN3B", "0000013714", 1252800000),
    ),
    "Amazon 2018 reviews": (
        {"All_Beauty.json.gz": REVIEW_2018, "meta_All_Beauty.json.gz": META_2018},
        ("AUI6WTTT0QZYS", "5120053084", 1514764800),
    ),
    "Amazon 2018 ratings only": (
        {"All_Beauty.csv": "0000013714,A2SUAM1J3GNN3B,5.0,1252800000\n"},
        ("A2SUAM1J3GNN3B", "0000013714", 1252800000),
    ),
    "Amazon 2023 reviews": (
        {"All_Beauty.jsonl.gz": REVIEW_2023, "meta_All_Beauty.jsonl.gz": META_2023},
        ("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B00YQ6X8EO", 1588687728),
    ),
    "Amazon 2023 ratings only": (
        {"All_Beauty.csv.gz": "user_id,parent_asin,rating,timestamp\nAGKH,B00YQ6X8EO,5.0,1588687728923\n"},
        ("AGKH", "B00YQ6X8EO", 1588687728),
    ),
    "Amazon 2023 5-core parts": (
        {
            "All_Beauty.train.csv.gz": HISTORY,
            "All_Beauty.valid.csv.gz": HISTORY.replace("B1,5.0,1588687728923,", "B2,4.0,1588687729923,B1"),
            "All_Beauty.test.csv.gz": HISTORY.replace("B1,5.0,1588687728923,", "B3,4.0,1588687730923,B1 B2"),
        },
        ("AGKH", "B3", 1588687730),
    ),
    "Yelp": (
        {"yelp_academic_dataset_review.json": YELP, "yelp_academic_dataset_business.json": BUSINESS},
        ("mh_-eMZ6K5RLWhZyISBhwA", "XQfwVwDr-v0ZS3_CbbE5Xw", 1531001351),
    ),
    "Steam": ({"steam_reviews.json.gz": STEAM, "steam_games.json.gz": GAME}, ("Chaos Syren", "725280", 1513468800)),
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
        {
            "events.csv": "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n1433226394089,257597,transaction,355908,420\n"
        },
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
            "transactions_train.csv": "t_dat,customer_id,article_id,price,sales_channel_id\n2018-09-20,000058a12d5b43e67d225668fa1f8d618c13dc232df0cad8ffe7ad4a1091e318,0663713001,0.050830508474576264,2\n",
            "articles.csv": ARTICLES
            + '0663713001,0663713,Strap top,253,Vest top,Garment Upper body,1010016,Solid,09,Black,4,Dark,5,Black,1676,Jersey Basic,A,Ladieswear,1,Ladieswear,16,Womens Everyday Basics,1002,Jersey Basic,"Jersey top, with narrow straps."\n',
        },
        ("000058a12d5b43e67d225668fa1f8d618c13dc232df0cad8ffe7ad4a1091e318", "0663713001", 1537401600),
    ),
    "Instacart": (
        {
            "order_products__prior.csv": "order_id,product_id,add_to_cart_order,reordered\n2,33120,1,1\n2,28985,2,1\n",
            "order_products__train.csv": "order_id,product_id,add_to_cart_order,reordered\n1,49302,1,1\n",
            "orders.csv": "order_id,user_id,eval_set,order_number,order_dow,order_hour_of_day,days_since_prior_order\n3,202279,prior,1,2,08,\n2,202279,prior,3,5,09,8.0\n1,202279,train,4,4,10,9.0\n17,36855,test,5,6,15,1.0\n",
            "products.csv": PRODUCTS,
        },
        ("202279", "28985", 3),
    ),
    "Tmall": (
        {
            "user_log_format1.csv": "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n328862,323294,833,2882,2661,829,0\n328862,844400,1271,2882,,1111,2\n"
        },
        ("328862", "323294", 829),
    ),
    "Taobao UserBehavior": (
        {"UserBehavior.csv": "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,pv,-1511561733\n"},
        ("1", "2268318", 1511544070),
    ),
    "LastFM-1K": (
        {
            "userid-timestamp-artid-artname-traid-traname.tsv": 'user_000001\t2009-05-04T23:08:57Z\tf1b1cf71-bd35-4e99-8624-24a6e15f133a\tDeep "Dish\t\tPacha Ibiza-09-28-2007\n'
        },
        ("user_000001", "f1b1cf71-bd35-4e99-8624-24a6e15f133a", 1241478537),
    ),
    "Gowalla": (
        {"loc-gowalla_totalCheckins.txt.gz": "0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n"},
        ("0", "22847", 1287532527),
    ),
    "Foursquare": (
        {
            "dataset_TSMC2014_NYC.txt": "470\t49bbd6c0f964a520f4531fe3\t4bf58dd8d48988d127951735\tArts & Crafts Store\t40.719810375488535\t-74.00258103213994\t-240\tTue Apr 03 18:00:09 +0000 2012\n979\t4a43c0aef964a520c6a61fe3\t4bf58dd8d48988d1df941735\tCaf\xe9\t40.6\t-74.0\t-240\tTue Apr 03 18:00:25 +0000 2012\n".encode(
                "latin-1"
            )
        },
        ("470", "49bbd6c0f964a520f4531fe3", 1333476009),
    ),
    "Foursquare global": (
        {
            "dataset_TIST2015_Checkins.txt": "50756\t4f5e3a72e4b053fd6a4313f6\tTue Apr 03 18:00:06 +0000 2012\t240\n",
            "dataset_TIST2015_POIs.txt": "4f5e3a72e4b053fd6a4313f6\t40.733596\t-74.003139\tJazz Club\tUS\n",
        },
        ("50756", "4f5e3a72e4b053fd6a4313f6", 1333476006),
    ),
    "MIND": (
        {
            "behaviors.tsv": "1\tU13740\t11/11/2019 9:05:58 AM\tN55189 N42782\tN55689-1 N35729-0\n2\tU91836\t11/12/2019 6:11:30 PM\t\tN20678-0 N39317-1\n",
            "news.tsv": 'N55689\tlifestyle\tlifestyleroyals\tThe "Brands Queen\tShop\thttps://x.html\t[{"Label": "Prince", "Type": "P"}]\t[]\n',
        },
        ("U91836", "N39317", 1573582290),
    ),
    "KuaiRand": (
        {
            "log_standard_4_08_to_4_21_pure.csv": KUAIRAND
            + "3,1071,20220408,1600,1649408076860,1,0,0,0,0,0,1,175045,87433,0,0,0,0,1\n3,77,20220408,1600,1649405401999,0,0,0,0,0,0,0,0,10000,0,0,0,0,1\n"
        },
        ("3", "1071", 1649408076),
    ),
    "Dunnhumby": (
        {
            "transaction_data.csv": DUNNHUMBY
            + "2375,26984851472,1,1004906,1,1.39,364,-0.6,1631,1,0,0\n1364,26984896261,1,842930,1,2.19,31742,0,0742,1,0,0\n",
            "product.csv": "PRODUCT_ID,MANUFACTURER,DEPARTMENT,BRAND,COMMODITY_DESC,SUB_COMMODITY_DESC,CURR_SIZE_OF_PRODUCT\n1004906,69,PRODUCE,Private,POTATOES,POTATOES RUSSET (BULK&BAG),5 LB\n",
        },
        ("2375", "1004906", 86400 + 16 * 3600 + 31 * 60),
    ),
    "UCI Online Retail": ({"Online Retail.xlsx": b""}, ("17850", "85123A", 1291191960)),
    "UCI Online Retail as CSV": (
        {"data.csv": RETAIL_ROWS.format(RETAIL_HEADER, "12/1/2010 8:26").encode("latin-1")},
        ("17850", "85123A", 1291191960),
    ),
    "UCI Online Retail, day first": (
        {"OnlineRetail.csv": RETAIL_ROWS.format(RETAIL_HEADER, "01/12/2010 08:26").encode("latin-1")},
        ("17850", "85123A", 1291191960),
    ),
    "UCI Online Retail II": ({"online_retail_II.xlsx": b""}, ("17850", "85123A", 1291191960)),
    "UCI Online Retail II as CSV": (
        {"online_retail_II.csv": RETAIL_ROWS.format(RETAIL_II_HEADER, "2010-12-01 08:26:00").replace("17850", "17850.0")},
        ("17850.0", "85123A", 1291191960),
    ),
    "OTTO": ({"train.jsonl": "".join(json.dumps(each) + "\n" for each in OTTO)}, ("1", "1492293", 1659304852)),
    "Netflix": (
        {
            "combined_data_1.txt": "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n2059652,4,2005-09-05\n",
            "combined_data_2.txt": "4500:\n2532865,4,2005-07-26\n",
            "movie_titles.csv": "1,2003,Dinosaur Planet\n2,2004,Isle, of \xc9ire\n4500,1997,X\n".encode("latin-1"),
        },
        ("2059652", "2", 1125878400),
    ),
}


def write_workbook(path: Path) -> None:
    """Online Retail as a workbook, or its second part with two sheets, with numbers and dates as such."""
    from openpyxl import Workbook

    sheets = {"Online Retail": RETAIL_HEADER}
    if "II" in path.name:
        sheets = dict.fromkeys(("Year 2009-2010", "Year 2010-2011"), RETAIL_II_HEADER)
    book = Workbook()
    book.remove(book.active)
    for year, (title, header) in enumerate(sheets.items(), 2011 - len(sheets)):
        sheet = book.create_sheet(title)
        sheet.append(header.split(","))
        when = dt.datetime(year, 12, 1, 8, 26)
        sheet.append([536365, "85123A", "HANGER, T-LIGHT", 6, when, 2.55, 17850, "United Kingdom"])
        sheet.append([536366, 22632, None, 1, when, 1, None, "United Kingdom"])
        sheet.append(["C536379", "D", "D", -1, when, 27.5, 14527, "United Kingdom"])
    book.save(path)
